"""The options of a pooling are the same, with the same defaults, wherever they stand."""

import dataclasses
import json

import pytest
import torch
from tiny import BART, BERT
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertModel, HfArgumentParser

from shtopk import PoolingOptions, TopKPooling
from shtopk.integrations.encoder import pool_encoder
from shtopk.integrations.sentence_transformers import TopKTokenPooling
from shtopk.models import TopKPoolingConfig, TopKPoolingSeq2SeqConfig
from shtopk.operators import OPERATORS
from shtopk.training import ModelArguments, parse


def of_the_command_line(given):
    words = [f"--{name}={value}" for name, value in given.items()]
    return HfArgumentParser(ModelArguments).parse_args_into_dataclasses(words)[0].pooling_options


def of_an_encoder(*record, **by_name):
    model = pool_encoder(BertModel(BertConfig(**BERT)), {1: 4}, *record, **by_name)
    return model.encoder.pooling["1"].options


def saved_and_read(configuration):
    return TopKPoolingConfig.from_dict(json.loads(configuration.to_json_string()))


PLACES = {
    "module": lambda given: TopKPooling(16, 4, **given).options,
    "configuration": lambda given: TopKPoolingConfig(**given).pooling_options,
    "saved configuration": lambda given: saved_and_read(TopKPoolingConfig(**given)).pooling_options,
    "command line": of_the_command_line,
    "sentence-transformers": lambda given: TopKTokenPooling(16, 4, **given).pooling.options,
}
ENCODERS = {  # whose order is fixed
    "encoder": lambda given: of_an_encoder(**{"protected": ()} | given),
    "encoder, by record": lambda given: of_an_encoder(PoolingOptions(**given)),
}


@pytest.mark.parametrize("place", PLACES | ENCODERS)
@pytest.mark.parametrize("given", [{}, {"operator": "iterative"}, {"temperature": 0.5}, {"initial_temperature": 2.0},
                                   {"eval_operator": "hard"},
                                   {"operator": "hard_gated", "temperature": 2.0, "scorer": "mlp"}])  # fmt: skip
def test_wherever_options_stand_they_mean_the_same(place, given):
    assert (PLACES | ENCODERS)[place](given) == PoolingOptions(**given)


@pytest.mark.parametrize("place", PLACES)
def test_every_option_can_be_given_wherever_options_stand(place):
    others = {"operator": "hard", "eval_operator": "iterative", "temperature": 3.0, "initial_temperature": 5.0,
              "scorer": "first", "keep_order": False}  # fmt: skip
    assert {*others, "protected"} == {field.name for field in dataclasses.fields(PoolingOptions)}
    assert PLACES[place](others) == PoolingOptions(**others)


@pytest.mark.parametrize("name", OPERATORS)
def test_by_default_temperatures_are_the_operators_own(name):
    options = PoolingOptions(operator=name)
    assert (options.temperature, options.initial_temperature) == OPERATORS[name][1:3]


def test_in_eval_mode_select_and_merge_pools_for_successive_halving_and_every_other_operator_for_itself():
    assert PoolingOptions().eval_operator == "select_and_merge"
    others = [name for name in OPERATORS if name != "successive_halving"]
    assert [PoolingOptions(operator=name).eval_operator for name in others] == others


def test_a_temperature_never_changes_unless_an_initial_one_is_given():
    assert [PoolingOptions().temperature_at(p) for p in (0, 0.5, 1)] == [1] * 3
    assert [PoolingOptions(temperature=0.5).temperature_at(p) for p in (0, 0.5, 1)] == [0.5] * 3
    assert [PoolingOptions(initial_temperature=4.0).temperature_at(p) for p in (0, 0.5, 1)] == [4, 2, 1]


def test_a_temperature_in_yaml_alone_is_constant(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("temperature: 1\nprotected: [0, -1]\nk_by_layer: {2: 64, 4: 0.5}\n")
    model = parse(["--config", str(path), "--output_dir", str(tmp_path / "run")]).model
    assert (model.pooling_options.temperature, model.pooling_options.initial_temperature) == (1, None)
    assert model.pooling_options.protected == (0, -1)
    assert model.shares_or_counts == {"2": 64, "4": 0.5}


@pytest.mark.parametrize("scorer", [nn.Sequential(nn.Linear(16, 1)), nn.Sequential(nn.Linear(16, 1), nn.Flatten(-2))])
def test_any_module_can_score(scorer):
    pooling = TopKPooling(16, 4, scorer=scorer, temperature=1.0)
    pooling(torch.randn(2, 9, 16)).hidden_states.square().sum().backward()
    assert (scorer[0].weight.grad != 0).any()
    with pytest.raises(ValueError, match="to be saved, got a module"):
        pooling.options.to_dict()


def test_what_0_1_0_saved_still_says_what_it_said():
    default = TopKPoolingConfig(boost="softmax", temperature=0.0625, initial_temperature=4.0)
    assert default.pooling_options == PoolingOptions(temperature=0.0625, initial_temperature=4.0)
    relative = TopKPoolingConfig(boost="relative", temperature=0.1, initial_temperature=4.0)
    assert relative.operator == TopKPooling(8, 2, boost="relative").options.operator == "successive_halving_relative"
    assert (relative.temperature, relative.initial_temperature) == (0.1, 4.0)
    rival = TopKPoolingConfig(boost="power", operator="hard_gated", temperature=0.5, initial_temperature=4.0)
    assert (rival.operator, rival.temperature) == ("hard_gated", 0.5)
    with pytest.raises(ValueError, match="no boost 'power' any more; call successive_halving_topk"):
        TopKPooling(8, 2, boost="power")


def test_an_option_can_be_read_on_the_module_and_none_is_set_in_vain():
    pooling = TopKPooling(8, 2, temperature=1.0)
    assert (pooling.temperature, pooling.keep_order, pooling.protected) == (1.0, True, ())
    with pytest.raises(AttributeError):
        pooling.temperature = 0.1


def test_where_a_decoder_reads_the_slots_eval_mode_pools_as_training_does():
    assert TopKPoolingSeq2SeqConfig().pooling_options.eval_operator == "successive_halving"
    assert TopKPoolingSeq2SeqConfig(operator="hard_gated").eval_operator == "hard_gated"
    assert TopKPoolingSeq2SeqConfig(eval_operator="select_and_merge").eval_operator == "select_and_merge"
    whole = pool_encoder(BartForConditionalGeneration(BartConfig(**BART)), {0: 4})
    assert whole.model.encoder.pooling["0"].options.eval_operator == "successive_halving"
