"""TopKPooling: what it keeps, what it protects, how its temperature anneals, and what it refuses."""

import numpy as np
import pytest
import torch
from operator_cases import gated, softmax_halving
from torch import nn

from shtopk import TopKPooling, anneal, select_and_merge_topk
from shtopk.operators import OPERATORS


def tokens(n=20, batch=3, d=8):
    torch.manual_seed(0)
    mask = torch.arange(n) < torch.tensor([n, n - 5, 3])[:batch].unsqueeze(1)
    return torch.randn(batch, n, d), mask.long()


@pytest.mark.parametrize(("operator", "function"), [("successive_halving", softmax_halving), ("hard_gated", gated)])
def test_it_scores_then_pools_by_the_operator(operator, function):
    hidden, mask = tokens()
    pooling = TopKPooling(8, 4, operator=operator, keep_order=False, temperature=0.3).train()
    expected = function(hidden, pooling.scorer(hidden).squeeze(-1), 4, mask=mask, temperature=0.3)
    pooled = pooling(hidden, mask)
    torch.testing.assert_close(pooled.hidden_states, expected.values)
    assert pooled.positions.equal(expected.positions)
    assert pooled.attention_mask.dtype == mask.dtype and pooled.attention_mask.equal(expected.mask.long())


@pytest.mark.parametrize(("options", "function"), [
    ({}, select_and_merge_topk), ({"operator": "hard_gated", "eval_operator": "successive_halving"}, softmax_halving),
    ({"operator": "select_and_merge", "eval_operator": "hard_gated"}, gated),
])  # fmt: skip
def test_in_eval_mode_the_eval_operator_pools_by_the_same_scores(options, function):
    hidden, mask = tokens()
    pooling = TopKPooling(8, 4, keep_order=False, temperature=0.3, **options).eval()
    expected = function(hidden, pooling.scorer(hidden).squeeze(-1), 4, mask=mask, temperature=0.3)
    torch.testing.assert_close(pooling(hidden, mask).hidden_states, expected.values)
    assert not torch.equal(pooling.train()(hidden, mask).hidden_states, expected.values)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("protected", "places"), [
    ((0, 2), [(0, 2), (0, 2), (7,)]),  # places of real tokens
    ((0, -1), [(0, 19), (0, 14), (7,)]),  # twice the same token in the third row
    ((0, 7, -1), [(0, 7, 19), (0, 8, 14), (7,)]),
])  # fmt: skip
def test_protected_tokens_stand_alone_in_their_slot_with_weight_one(operator, protected, places):
    torch.manual_seed(0)
    hidden, mask = torch.randn(4, 20, 8), torch.ones(4, 20)
    mask[1, [3, *range(15, 20)]] = 0
    mask[2:] = 0
    mask[2, 7] = 1
    pooling = TopKPooling(8, 5, operator=operator, protected=protected).eval()
    pooled = pooling(hidden, mask)
    weights = pooled.dense_weights()
    for row, of_row in enumerate(places):
        for token in of_row:
            (slot,) = ((pooled.positions[row] == token) & pooled.mask[row]).nonzero().flatten().tolist()
            assert torch.equal(pooled.hidden_states[row, slot], hidden[row, token])
            assert weights[row, slot].tolist() == [float(j == token) for j in range(20)]
    assert pooled.attention_mask.sum(-1).tolist() == [5, 5, 1, 0]
    assert (pooled.hidden_states[3] == 0).all()
    torch.testing.assert_close(weights @ hidden, pooled.hidden_states)
    torch.testing.assert_close(pooled.pool(hidden), pooled.hidden_states)
    shorter = pooling(hidden[1:2, :15], mask[1:2, :15])
    torch.testing.assert_close(shorter.hidden_states, pooled.hidden_states[1:2])


@pytest.mark.parametrize("operator", OPERATORS)
def test_padding_on_the_left_changes_nothing_where_tokens_are_protected(operator):
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, 8)
    pooling = TopKPooling(8, 4, operator=operator, protected=(0, 2, -1)).eval()
    padded = pooling(torch.cat([torch.randn(2, 3, 8), hidden], 1), (torch.arange(12) >= 3).expand(2, 12))
    torch.testing.assert_close(padded.hidden_states, pooling(hidden).hidden_states)
    assert padded.positions.equal(pooling(hidden).positions + 3)


def test_protecting_a_token_does_not_change_how_sharply_the_others_are_chosen():
    hidden, _ = tokens(batch=1)
    pooling = TopKPooling(8, 4, protected=(0,), keep_order=False).eval()
    alone = TopKPooling(8, 3, keep_order=False).eval()
    alone.load_state_dict(pooling.state_dict())
    torch.testing.assert_close(pooling(hidden).hidden_states[:, 1:], alone(hidden[:, 1:]).hidden_states)


def test_slots_stand_in_document_order_by_default():
    pooled = TopKPooling(8, 6).eval()(*tokens())
    for row, kept in zip(pooled.positions.tolist(), pooled.attention_mask.sum(-1).tolist(), strict=True):
        assert row[:kept] == sorted(row[:kept])


@pytest.mark.parametrize(("k", "n", "slots"), [(3, 20, 3), (0.25, 20, 5), (0.25, 21, 6), (1.0, 7, 7), (0.01, 9, 1),
                                               (30, 20, 30)])  # fmt: skip
def test_k_is_a_number_or_a_share_of_the_tokens(k, n, slots):
    assert TopKPooling(8, k)(torch.randn(2, n, 8)).hidden_states.shape == (2, slots, 8)


def test_first_and_strided_are_controls_that_learn_nothing():
    hidden, mask = tokens()
    first = TopKPooling(8, 4, operator="hard", scorer="first")
    assert first(hidden, mask).positions[:2].tolist() == [[0, 1, 2, 3]] * 2
    strided = TopKPooling(8, 5, operator="hard", scorer="strided")(hidden, mask)
    assert strided.positions[0].tolist() == [3, 7, 11, 15, 19]
    assert strided.positions[1].tolist() == [2, 5, 8, 11, 14]
    assert strided.attention_mask[2].tolist() == [1, 1, 1, 0, 0]
    assert list(first.parameters()) == []


def test_strided_leaves_no_hole_beside_protected_tokens():
    pooling = TopKPooling(8, 8, operator="hard", scorer="strided", protected=(0, -1))
    assert pooling(torch.randn(1, 66, 8)).positions.tolist() == [[0, 11, 22, 32, 43, 54, 64, 65]]


def test_anneal_moves_the_temperature_of_training_and_not_that_of_eval_mode():
    model = nn.Sequential(TopKPooling(8, 2, temperature=0.1, initial_temperature=10.0))
    assert [round(anneal(model, p), 6) for p in (0, 0.5, 1)] == [10.0, 1.0, 0.1]
    anneal(model, 0)
    model.eval()
    assert model[0].current_temperature == 0.1


def test_without_an_initial_temperature_it_is_the_same_throughout_and_with_one_training_begins_there():
    for progress in (0, 1):
        pooling = TopKPooling(8, 2, temperature=0.5)
        anneal(pooling, progress)
        assert pooling.train().current_temperature == pooling.eval().current_temperature == 0.5
    assert TopKPooling(8, 2, initial_temperature=4.0).train().current_temperature == 4.0
    assert TopKPooling(8, 2, initial_temperature=4.0).eval().current_temperature == 1.0


def test_soft_at_the_start_a_slot_mixes_many_tokens_and_sharp_at_the_end_one():
    hidden, _ = tokens(n=200, batch=1)
    pooling = TopKPooling(8, 4, temperature=0.0625, initial_temperature=16.0).train()
    mixed = []  # the effective number of tokens in a slot
    for progress in (0, 1):
        anneal(pooling, progress)
        mixed.append((1 / pooling(hidden).dense_weights().square().sum(-1)).mean())
    assert mixed[0] > 8 and mixed[1] < 2


@pytest.mark.parametrize("operator", [name for name, operator in OPERATORS.items() if operator.teaches])
@pytest.mark.parametrize("scorer", ["linear", "mlp"])
def test_the_scorer_learns_from_the_pooled_vectors(operator, scorer):
    pooling = TopKPooling(8, 4, operator=operator, scorer=scorer, initial_temperature=4.0)
    anneal(pooling, 0)
    pooling(*tokens())[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pooling.parameters())
    assert any((p.grad != 0).any() for p in pooling.parameters())


def test_learning_finds_planted_tokens():
    torch.manual_seed(1)
    pooling, head = TopKPooling(16, 4), nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*pooling.parameters(), *head.parameters()], lr=0.03)
    for _ in range(150):
        hidden, label = torch.randn(32, 64, 16), torch.randint(2, (32,))
        planted, row = torch.stack([torch.randperm(64)[:4] for _ in range(32)]), torch.arange(32)[:, None]
        hidden[row, planted, 0] += 4.0  # the mark
        hidden[row, planted, 1] += 3.0 * label[:, None] - 1.5  # the label: weak in the mean of all
        loss = nn.functional.cross_entropy(head(pooling(hidden).hidden_states.mean(1)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept = pooling.eval()(hidden).positions
    recall = (kept.unsqueeze(-1) == planted.unsqueeze(1)).any(1).float().mean()
    assert recall > 0.8


@pytest.mark.parametrize("scorer", ["linear", "mlp"])
def test_the_scores_differ_from_the_start(scorer):
    assert TopKPooling(64, 4, scorer=scorer).scorer(torch.randn(500, 64)).std() > 0.2


@pytest.mark.parametrize(("change", "message"), [
    ({"k": 0}, "whole number >= 1 or a share"),
    ({"k": 1.5}, "got 1.5"),
    ({"operator": "soft"}, "operator to be one of successive_halving"),
    ({"scorer": "deep"}, "scorer to be one of linear"),
    ({"temperature": -1.0}, "temperature > 0, got -1.0"),
    ({"initial_temperature": 0.0}, "initial_temperature > 0"),
    ({"protected": (0, 1, 2, 3)}, "fewer protected tokens than k = 4"),
    ({"protected": (-1, -1)}, "different places"),
    ({"keeporder": True}, r"\(operator, eval_operator, .*\), got keeporder"),
])  # fmt: skip
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TopKPooling(**({"hidden_size": 8, "k": 4} | change))


def test_anneal_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"progress in \[0, 1\], got 1.5"):
        anneal(TopKPooling(8, 2), 1.5)
    with pytest.raises(ValueError, match="found none in Linear"):
        anneal(nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize("scorer", ["linear", "mlp"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_nan_behind_the_mask_reaches_nothing(operator, scorer):
    hidden, mask = tokens()
    holes = hidden.masked_fill((mask == 0).unsqueeze(-1), torch.nan).requires_grad_()
    for training in (True, False):
        pooling = TopKPooling(8, 4, operator=operator, scorer=scorer, protected=(0,)).train(training)
        expected = pooling(hidden, mask)
        pooled = pooling(holes, mask)
        torch.testing.assert_close(pooled.hidden_states, expected.hidden_states)
        pooled.hidden_states.sum().backward()
        assert holes.grad.isfinite().all()
        given = [parameter.grad for parameter in pooling.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in given)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_nan_of_a_real_token_is_not_hidden(operator, training):
    hidden, mask = tokens()
    hidden[0, 4] = torch.nan
    pooling = TopKPooling(8, 4, operator=operator, protected=(0,)).train(training)
    pooled = pooling(hidden, mask)
    assert pooled.hidden_states[0, 1:].isnan().all()
    assert pooled.attention_mask[0, 1:].any()  # so that whoever honours it sees the NaN
    torch.testing.assert_close(pooled.hidden_states[1:], pooling(hidden[1:], mask[1:]).hidden_states)
    torch.compiler.reset()
    compiled = torch.compile(pooling, backend="eager", fullgraph=True)(hidden, mask)
    torch.testing.assert_close(compiled.hidden_states, pooled.hidden_states, equal_nan=True)


@pytest.mark.parametrize("training", [True, False])
def test_what_has_diverged_is_not_hidden_by_an_empty_mask(training):
    hidden, mask = tokens()
    pooling = TopKPooling(8, 4).train(training)
    hidden[0] = torch.nan
    pooled = pooling(hidden, mask)
    assert pooled.attention_mask[0].any() and not pooling(hidden, mask, k=1).attention_mask[0].logical_not().any()
    kept = pooled.hidden_states.masked_fill(pooled.attention_mask.unsqueeze(-1) == 0, 0)
    assert kept[0].isnan().any() and kept[1:].isfinite().all()


@pytest.mark.parametrize(("k", "n", "slots"), [(0.07, 100, 7), (0.55, 100, 55), (0.28, 25, 7), (0.1, 31, 4)])
def test_a_share_is_rounded_up_by_what_it_is_and_not_by_how_a_computer_writes_it(k, n, slots):
    pooling = TopKPooling(8, k)
    assert pooling.slots_for(n) == slots
    assert pooling(torch.randn(2, n, 8), torch.ones(2, n)).attention_mask.sum(1).tolist() == [slots, slots]


def test_vectors_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected token vectors \[B, n, d\], got \[10, 8\]"):
        TopKPooling(8, 4)(torch.randn(10, 8), torch.ones(10))


@pytest.mark.parametrize("k", [4, 0.5])
@pytest.mark.parametrize("shape", [(20,), (1, 20), (3, 19), (3, 1, 20)])
def test_a_mask_of_another_shape_is_refused(k, shape):
    with pytest.raises(ValueError, match=r"expected a mask of the scores' shape \[3, 20\], got"):
        TopKPooling(8, k)(tokens()[0], torch.ones(shape))


@pytest.mark.parametrize("protected", [0, "01", (None,), (0.5,)])
def test_protected_places_are_whole_numbers(protected):
    with pytest.raises(ValueError, match="protected to be a list of whole numbers"):
        TopKPooling(8, 4, protected=protected)


def test_a_temperature_that_fell_in_inference_mode_is_trained_at():
    pooling = TopKPooling(8, 4, initial_temperature=4.0).double()
    with torch.inference_mode():
        anneal(pooling, 0.5)
    pooling(torch.randn(2, 9, 8).double()).hidden_states.sum().backward()


@pytest.mark.parametrize("k", [0, -5, True, 1.5, 2.0, 0.0, float("nan"), "4"])
def test_an_impossible_k_of_a_call_is_refused(k):
    pooling = TopKPooling(8, 4)
    with pytest.raises(ValueError, match=r"expected k to be a whole number >= 1 or a share in \(0, 1\], got"):
        pooling(torch.randn(2, 10, 8), k=k)
    pooling.k = k
    with pytest.raises(ValueError, match="expected k to be"):
        pooling(torch.randn(2, 10, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.int32])
def test_a_mask_to_be_added_is_refused(dtype):
    hidden, mask = tokens()
    with pytest.raises(ValueError, match="got negative numbers; an additive mask has 0 for a real token"):
        TopKPooling(8, 4)(hidden, ((mask - 1) * 10_000).to(dtype))


def test_a_whole_number_of_numpy_is_a_k_as_any_other():
    hidden, mask = tokens()
    pooling = TopKPooling(8, np.int64(4)).eval()
    assert type(pooling.k) is int and pooling.slots_for(20, np.int32(3)) == 3
    pooled = pooling(hidden, mask, k=np.int64(3))
    assert pooled.positions.equal(pooling(hidden, mask, k=3).positions)
    with pytest.raises(ValueError, match="expected k to be a whole number >= 1"):
        TopKPooling(8, np.bool_(True))


@pytest.mark.parametrize("temperature", [torch.tensor([0.5]), "0.5"])
def test_a_temperature_that_is_no_number_is_refused(temperature):
    with pytest.raises(ValueError, match="expected temperature to be a number > 0, got"):
        TopKPooling(8, 4, temperature=temperature)
