"""What 0.1.0 saved loads and computes as it did: configurations, and the model code that its checkpoints carry."""

import dataclasses
import json

import pytest
import torch
from tiny import BERT
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import BaseModelOutput

from shtopk import TopKPooling
from shtopk.integrations.encoder import load_pooled, pool_encoder
from shtopk.integrations.sentence_transformers import TopKTokenPooling
from shtopk.models import TopKPoolingConfig, pool_in_windows
from shtopk.pooling import PooledTokens, ScorerLinear
from shtopk.selection import TopK


class Encoder(torch.nn.Embedding):
    def forward(self, input_ids, attention_mask):
        return BaseModelOutput(super().forward(input_ids))


def in_two_steps(encoder, pooling, ids, mask, window, window_k):
    """The two steps of a single document as the code of 0.1.0 took them: it knows `choice`, `_replace` and `then`."""
    parts = [pooling(encoder(ids, mask).last_hidden_state, mask, k=window_k).choice
             for ids, mask in zip(ids.split(window, 1), mask.split(window, 1), strict=True)]  # fmt: skip
    vectors, kept, weights = (
        torch.cat([getattr(part, name) for part in parts], 1) for name in ("values", "mask", "weights")
    )
    pooled = pooling(vectors, kept.to(mask.dtype))
    slots = torch.cat([part.slots + window_k * i for i, part in enumerate(parts)], 1)
    first = pooled.choice._replace(weights=weights, slots=slots)
    choice = first.then(pooled.choice).in_order()
    assert isinstance(pooled.choice, TopK)
    return PooledTokens(choice.values, choice.mask.to(mask.dtype), choice.positions, choice)


def test_carried_code_pools_in_two_steps_as_ours_does():
    torch.manual_seed(0)
    encoder, pooling = Encoder(50, 8), TopKPooling(8, 3, temperature=1.0)
    assert isinstance(pooling.scorer, ScorerLinear)
    ids = torch.randint(50, (1, 24))
    mask = torch.ones_like(ids)
    theirs = in_two_steps(encoder, pooling, ids, mask, window=8, window_k=2)
    ours = pool_in_windows(encoder, pooling, ids, mask, 8, 2)
    torch.testing.assert_close(theirs.hidden_states, ours.hidden_states)
    torch.testing.assert_close(theirs.choice.weights, ours.weights)
    assert theirs.positions.tolist() == ours.positions.tolist()
    assert theirs.choice.slots.tolist() == ours.slots.tolist()


@pytest.mark.parametrize(("saved", "temperatures"), [
    ({}, (0.0625, 4.0)),
    ({"operator": "iterative"}, (0.0625, 4.0)),
    ({"temperature": 0.3}, (0.3, 4.0)),
    ({"temperature": 0.3, "initial_temperature": None, "boost": "relative"}, (0.3, None)),
])  # fmt: skip
def test_an_encoder_that_was_saved_pooled_keeps_its_schedule(saved, temperatures, tmp_path):
    pool_encoder(BertModel(BertConfig(**BERT)), {1: 4}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoder_pooling"] = {"k_by_layer": {"1": 4}, **saved}
    (tmp_path / "config.json").write_text(json.dumps(config))
    pooling = load_pooled(BertModel, tmp_path).encoder.pooling["1"]
    assert (pooling.temperature, pooling.initial_temperature) == temperatures
    assert pooling.eval_operator == pooling.operator


@pytest.mark.parametrize(("saved", "expected"), [
    ({}, ("successive_halving", 0.0625, 4.0)),
    ({"operator": "iterative", "temperature": 1.0}, ("iterative", 1.0, None)),
    ({"boost": "relative"}, ("successive_halving_relative", 0.0625, 4.0)),
    ({"temperature": 1.0}, ("successive_halving", 1.0, None)),
])  # fmt: skip
def test_a_configuration_from_before_there_was_an_eval_operator_pools_as_it_was_trained(saved, expected):
    config = TopKPoolingConfig.from_dict({"k": 4, "transformers_version": "5.23.0"} | saved)
    assert (config.operator, config.temperature, config.initial_temperature) == expected
    assert config.eval_operator == config.operator
    again = TopKPoolingConfig.from_dict(json.loads(config.to_json_string()))
    assert again.pooling_options == config.pooling_options


def test_a_module_of_sentence_transformers_that_was_saved_loads(tmp_path):
    module = TopKTokenPooling(8, 3)
    module.save(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["eval_operator"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"boost": "softmax"}))
    options = TopKTokenPooling.load(str(tmp_path)).pooling.options
    assert options == dataclasses.replace(module.pooling.options, eval_operator="successive_halving")
