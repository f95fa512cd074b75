"""A k drawn for each update: from the whole range, the same wherever it is drawn, in training mode alone."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import BERT
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import BertConfig, BertModel

from shtopk import TopKPooling, draw_k
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification


@pytest.mark.parametrize(("low", "high"), [(4, 128), (1, 3), (7, 7)])
def test_draws_are_log_uniform_and_reach_both_ends(low, high):
    pooling, count = TopKPooling(8, 32), 4000
    drawn = [draw_k(pooling, (low, high), update) for update in range(count)]
    assert min(drawn) == low and max(drawn) == high
    for k in {low, (low + high) // 2, high}:
        expected = math.log((k + 1) / low) / math.log((high + 1) / low)
        assert sum(one <= k for one in drawn) / count == pytest.approx(expected, abs=0.04)  # 5 standard deviations


def test_a_draw_depends_on_seed_and_update_alone():
    def draws(seed):
        return [draw_k(TopKPooling(8, 2), (4, 128), update, seed) for update in range(50)]

    expected = draws(3)
    random.seed(1)
    torch.manual_seed(1)
    assert draws(3) == expected != draws(4)
    assert [draw_k(TopKPooling(8, 2), (4, 128), update, 3) for update in range(20, 50)] == expected[20:]
    code = "from shtopk import *; print([draw_k(TopKPooling(8, 2), (4, 128), update, 3) for update in range(50)])"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert elsewhere.strip() == str(expected)


def test_the_draw_holds_in_training_mode_where_no_k_is_given():
    pooling, hidden = TopKPooling(8, 5), torch.randn(2, 40, 8)
    drawn = draw_k(pooling, (10, 30), 0)
    slots = lambda **options: pooling(hidden, torch.ones(2, 40), **options).hidden_states.shape[1]
    assert slots() == pooling.current_k == pooling.slots_for(40) == drawn != 5
    assert slots(k=3) == 3
    pooling.eval()
    assert slots() == pooling.current_k == pooling.slots_for(40) == 5
    pooling.train()
    pooling.training_k = None
    assert slots() == 5


def test_it_is_drawn_for_the_last_pooling_and_those_between_layers_keep_theirs():
    config = TopKPoolingConfig(backbone=BertConfig(**BERT).to_dict(), k=4, k_by_layer={1: 20}, num_labels=2)
    model = TopKPoolingForSequenceClassification(config).train()
    drawn = draw_k(model, (5, 15), 1)
    out = model(input_ids=torch.randint(4, 30, (2, 40)))
    assert out.pooled_hidden_states.shape[1] == drawn != 4
    assert model.backbone.encoder.pooling["1"].current_k == 20
    assert model.config.k == 4


def test_an_encoder_pools_between_its_layers_to_the_k_that_was_drawn():
    model = pool_encoder(BertModel(BertConfig(**BERT)), {1: 4}).train()
    drawn = draw_k(model, (5, 15), 0)
    given = {"input_ids": torch.randint(4, 30, (2, 40))}
    assert model(**given).last_hidden_state.shape[1] == drawn
    assert model.eval()(**given).last_hidden_state.shape[1] == 4


def test_a_compiled_pooling_is_given_the_k_without_being_compiled_for_each():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    pooling, hidden = TopKPooling(8, 5), torch.randn(2, 40, 8)
    compiled = torch.compile(pooling, fullgraph=True, backend=counter)
    for update in range(12):
        k = draw_k(pooling, (4, 30), update)
        torch.testing.assert_close(compiled(hidden, None, k).values, pooling(hidden).values)
        pooling.training_k = None
    assert counter.frame_count <= 3


def test_whole_numbers_of_numpy_make_a_range():
    pooling = TopKPooling(8, 4)
    assert draw_k(pooling, np.array([3, 8]).tolist(), 0) == draw_k(pooling, tuple(np.array([3, 8])), 0)
    assert type(pooling.training_k) is int


@pytest.mark.parametrize("k_range", [(8, 4), (0, 4), (4.0, 8), (True, 4), (4,), 4, "4:8", None], ids=str)
def test_an_impossible_range_is_refused(k_range):
    with pytest.raises(ValueError, match="k_range to be two whole numbers, 1 <= low <= high, got"):
        draw_k(TopKPooling(8, 2), k_range, 0)


def test_a_range_that_leaves_no_slot_beside_protected_tokens_and_a_model_without_pooling_are_refused():
    with pytest.raises(ValueError, match=r"begin above the 2 protected tokens, got \(2, 8\)"):
        draw_k(TopKPooling(8, 4, protected=(0, -1)), (2, 8), 0)
    with pytest.raises(ValueError, match="found none in Linear"):
        draw_k(nn.Linear(2, 2), (2, 8), 0)
