"""The operators against the loops of reference.py, and the limits and invariances that users rely on."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import (
    OPERATORS,
    SHAPES,
    SUMS_TO_ONE,
    gated,
    gradients,
    power_halving,
    relative_halving,
    sample,
    softmax_halving,
    straight_through,
)

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

BOOSTS = {"relative": 0.5, "softmax": 0.3, "power": 1.0}
HALVING = [(boost, {"boost": boost, "temperature": temperature}) for boost, temperature in BOOSTS.items()]
ALGORITHMS = {
    **{boost: (successive_halving_topk, reference.algorithm_2, options) for boost, options in HALVING},
    "iterative, sharp": (iterative_topk, reference.algorithm_1, {"temperature": 0.02}),
    "iterative, soft": (iterative_topk, reference.algorithm_1, {"temperature": 1.0}),
    "select and merge": (select_and_merge_topk, reference.select_and_merge, {"temperature": 0.3}),
    "hard": (hard_topk, reference.hard, {}),
}

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(params=OPERATORS)
def operator(request):
    return request.param


def assert_equals_reference(operator, algorithm, values, scores, mask, k, **options):
    """Values and gradients; the operator's answer."""
    out = operator(values, scores, k, mask=mask, **options)
    expected = reference.by_rows(algorithm, values, scores, mask, k, **options)
    torch.testing.assert_close((out.values, out.scores), expected, rtol=0, atol=1e-9)
    found = gradients(values, scores, out.values, out.scores)
    torch.testing.assert_close(found, gradients(values, scores, *expected), rtol=0, atol=1e-9)
    return out


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_the_operators_are_those_of_the_reference(n, k, name):
    operator, algorithm, options = ALGORITHMS[name]
    assert_equals_reference(operator, algorithm, *sample(n, seed=n + k), k, **options)


@pytest.mark.parametrize(("boost", "temperature"), [("relative", 0.0625), ("relative", 0.01), ("softmax", 0.001)])
@pytest.mark.parametrize(("n", "k"), [(400, 4), (300, 1), (513, 16)])
def test_a_sharp_tournament_in_which_few_play_is_algorithm_2(n, k, boost, temperature):
    documents, options = sample(n, batch=3, seed=n), {"boost": boost, "temperature": temperature}
    out = assert_equals_reference(successive_halving_topk, reference.algorithm_2, *documents, k, **options)
    assert (out.slots[0] >= 0).sum() < n / 4


@pytest.mark.parametrize(("boost", "options"), HALVING)
def test_successive_halving_in_single_precision_stays_close_to_algorithm_2(boost, options):
    values, scores, mask = sample(200, d=8, dtype=torch.float32)
    out = successive_halving_topk(values, scores, 7, mask=mask, **options)
    expected = reference.by_rows(reference.algorithm_2, values.double(), scores.double(), mask, 7, **options)
    # A score's rounding, 6e-8, weighs 1 / (temperature * spread), about 70 here, in a pair's weight.
    torch.testing.assert_close((out.values.double(), out.scores.double()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("operator", "temperature"), [
    (softmax_halving, 0.7), (power_halving, 0.7), (select_and_merge_topk, 0.7), (iterative_topk, 0.4), (gated, 0.4),
])  # fmt: skip
def test_gradcheck(operator, temperature):
    *inputs, mask = sample(11)
    assert torch.autograd.gradcheck(lambda v, s: operator(v, s, 3, mask=mask, temperature=temperature)[:2], inputs)


def test_values_and_positions_are_those_of_the_dense_weights(operator):
    values, scores, mask = sample(30)
    out = operator(values, scores, 5, mask=mask)
    torch.testing.assert_close(out.dense_weights() @ values, out.values)
    torch.testing.assert_close(out.pool(values), out.values)
    assert out.positions.equal(out.dense_weights().argmax(-1).masked_fill(~out.mask, 0))


@pytest.mark.parametrize("operator", SUMS_TO_ONE)
def test_the_weights_of_a_filled_slot_sum_to_one_and_of_an_empty_slot_to_zero(operator):
    values, scores, mask = sample(17)
    out = operator(values, scores, 12, mask=mask)
    torch.testing.assert_close(out.dense_weights().sum(-1), out.mask.double())
    assert out.mask.sum(-1).tolist() == mask.sum(-1).clamp(max=12).tolist()
    assert (out.values[~out.mask] == 0).all() and (out.scores[~out.mask] == 0).all()


def test_keep_order_sorts_the_slots_by_position_and_nothing_else(operator):
    values, scores, mask = sample(30)
    ranked, ordered = (operator(values, scores, 12, mask=mask, keep_order=keep) for keep in (False, True))
    for row, kept in enumerate(ranked.mask.sum(-1).tolist()):
        order = ranked.positions[row, :kept].argsort()
        for name in ("positions", "values", "scores"):
            torch.testing.assert_close(getattr(ordered, name)[row, :kept], getattr(ranked, name)[row, order])
        torch.testing.assert_close(ordered.dense_weights()[row, :kept], ranked.dense_weights()[row, order])
        assert ordered.mask[row].tolist() == [True] * kept + [False] * (12 - kept)


@pytest.mark.parametrize("batch", [(), (2,), (3, 1, 2), (0,)])
def test_any_leading_dimensions(operator, batch):
    values, scores, mask = torch.randn(*batch, 9, 2), torch.randn(*batch, 9), torch.rand(*batch, 9) < 0.6
    out = operator(values, scores, 4, mask=mask)
    assert out.values.shape == (*batch, 4, 2)
    flat = operator(values.reshape(-1, 9, 2), scores.reshape(-1, 9), 4, mask=mask.reshape(-1, 9))
    torch.testing.assert_close(out.values.reshape(-1, 4, 2), flat.values)
    torch.testing.assert_close(out.dense_weights().reshape(-1, 4, 9), flat.dense_weights())


@pytest.mark.parametrize("boost", BOOSTS)
def test_k_of_n_is_the_identity(boost):
    values, scores, _ = sample(13, masked=False)
    out = successive_halving_topk(values, scores, 13, boost=boost, keep_order=True)
    assert torch.equal(out.values, values) and torch.equal(out.scores, scores)
    assert out.slots.tolist() == [list(range(13))] * len(scores)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), k=st.integers(1, 12), padding=st.integers(0, 30), seed=st.integers(0, 2**20),
       operator=st.sampled_from(OPERATORS))  # fmt: skip
def test_padding_never_changes_the_result(n, k, padding, seed, operator):
    values, scores, mask = sample(n, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(n + padding, generator=generator)[:n].sort().values  # padding anywhere, in between too
    padded_values = torch.full((4, n + padding, 3), torch.nan, dtype=torch.float64).index_copy(1, place, values)
    padded_scores = torch.full((4, n + padding), torch.nan, dtype=torch.float64).index_copy(1, place, scores)
    padded_mask = torch.zeros(4, n + padding, dtype=torch.bool).index_copy(1, place, mask)
    out, padded = operator(values, scores, k, mask=mask), operator(padded_values, padded_scores, k, mask=padded_mask)
    torch.testing.assert_close((padded.values, padded.scores), (out.values, out.scores))
    torch.testing.assert_close(padded.dense_weights()[..., place], out.dense_weights())
    assert padded.positions[out.mask].tolist() == place[out.positions[out.mask]].tolist()
    torch.testing.assert_close(gradients(values, scores, *padded[:2]), gradients(values, scores, *out[:2]))


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 2**20), operator=st.sampled_from(OPERATORS))
def test_the_order_of_the_tokens_does_not_matter(n, k, seed, operator):
    values, scores, mask = sample(n, seed=seed)
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    out = operator(values, scores, k, mask=mask)
    shuffled = operator(values[:, shuffle], scores[:, shuffle], k, mask=mask[:, shuffle])
    torch.testing.assert_close((shuffled.values, shuffled.scores), (out.values, out.scores))
    torch.testing.assert_close(shuffled.dense_weights(), out.dense_weights()[..., shuffle])


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(1e-2, 1e2), shift=st.floats(-10, 10), seed=st.integers(0, 2**20))
def test_relative_does_not_change_when_scores_are_scaled_or_shifted(scale, shift, seed):
    values, scores, mask = sample(40, seed=seed)
    out = relative_halving(values, scores, 6, mask=mask, temperature=0.1)
    moved = relative_halving(values, scores * scale + shift, 6, mask=mask, temperature=0.1)
    torch.testing.assert_close(moved.values, out.values, rtol=1e-6, atol=1e-6)


def test_masked_tokens_get_no_weight_and_no_gradient_whatever_stands_there(operator):
    values, scores, mask = sample(20)
    with torch.no_grad():
        values[~mask], scores[~mask] = torch.nan, torch.inf
    out = operator(values, scores, 6, mask=mask)
    assert (out.dense_weights().sum(-2)[~mask] == 0).all()
    for gradient, tensor in zip(gradients(values, scores, out.values, out.scores), (values, scores), strict=True):
        assert gradient.isfinite().all() and (gradient[~mask] == 0).all()
        assert gradient.shape == tensor.shape


@pytest.mark.parametrize("scores", [torch.zeros(2, 12), torch.full((2, 12), 5.0),
                                    torch.tensor([[1.0, 0.0] * 6, [0.0] * 11 + [1.0]])])  # fmt: skip
def test_ties_give_each_token_one_place_and_finite_gradients(operator, scores):
    scores, values = scores.clone().requires_grad_(), torch.randn(2, 12, 3, requires_grad=True)
    out = operator(values, scores, 5)
    assert all(len(set(row)) == 5 for row in out.positions.tolist())
    assert all(g.isfinite().all() for g in gradients(values, scores, out.values, out.scores))


@pytest.mark.parametrize("scale", [1e-8, 1e4, 1e30])
def test_tiny_and_huge_scores_keep_values_and_gradients_finite(operator, scale):
    scores, values = (torch.randn(2, 60) * scale).requires_grad_(), torch.randn(2, 60, 3, requires_grad=True)
    out = operator(values, scores, 5)
    assert out.values.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(values, scores, out.values, out.scores / scale))


def test_infinite_scores_of_real_tokens_rank_first_and_last(operator):
    scores = torch.tensor([0.0, torch.inf, 1.0, -torch.inf])
    out = operator(torch.eye(4), scores, 3)
    assert set(out.positions.tolist()) == {0, 1, 2}
    assert out.values.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_keeps_its_dtype_and_stays_close_to_double(operator, dtype, tolerance):
    values, scores, mask = sample(64, dtype=dtype)
    out = operator(values, scores, 8, mask=mask)
    exact = operator(values.double(), scores.double(), 8, mask=mask)
    assert out.values.dtype == out.scores.dtype == dtype and out.weights.dtype == torch.float32
    assert out.values.double().sub(exact.values).norm() <= tolerance * exact.values.norm()
    for gradient in gradients(values, scores, out.values, out.scores):
        assert gradient.dtype == dtype and gradient.isfinite().all()


def test_autocast_gives_what_it_gives_without(operator):
    values, scores, mask = sample(33, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = operator(values, scores, 5, mask=mask)
    exact = operator(values, scores, 5, mask=mask)
    torch.testing.assert_close(out.values, exact.values)
    torch.testing.assert_close(out.assignment.weights, exact.assignment.weights)
    assert out.positions.tolist() == exact.positions.tolist()


@pytest.mark.parametrize("part", ["weights", "scores", "values"])
def test_each_part_of_the_answer_has_a_gradient_of_its_own(part):
    values, scores, mask = sample(20)
    out = getattr(successive_halving_topk(values, scores, 4, mask=mask, temperature=1.0), part)
    (gradient,) = torch.autograd.grad((out * torch.linspace(0, 1, out.numel()).view_as(out)).sum(), scores)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


def test_hard_topk_teaches_the_scores_only_when_asked():
    values, scores, _ = sample(10, masked=False)
    assert torch.autograd.grad(hard_topk(values, scores, 3).values.sum(), scores, allow_unused=True) == (None,)
    kept = hard_topk(values, scores, 3).slots >= 0
    (gate,) = torch.autograd.grad(gated(values, scores, 3).values.sum(), scores)
    assert (gate[kept] != 0).all() and (gate[~kept] == 0).all()
    (through,) = torch.autograd.grad(straight_through(values, scores, 3).values.sum(), scores)
    assert (through != 0).all()
    torch.testing.assert_close(straight_through(values, scores, 3).values, hard_topk(values, scores, 3).values)


def test_a_sharp_choice_reads_few_of_the_values():
    values, scores, _ = sample(4096, batch=2, dtype=torch.float32, masked=False)
    out = successive_halving_topk(values, scores, 64, temperature=1e-3)
    assert (out.weights > 0).sum() < 0.2 * 2 * 4096


@pytest.mark.parametrize(("change", "message"), [
    ({"k": 0}, "whole number >= 1, got 0"),
    ({"k": True}, "whole number >= 1, got True"),
    ({"k": 2.0}, "whole number >= 1, got 2.0"),
    ({"temperature": 0.0}, "temperature > 0, got 0.0"),
    ({"temperature": torch.ones(2, 1)}, r"temperature that is one number, got a tensor \[2, 1\]"),
    ({"temperature": float("nan")}, "temperature > 0, got nan"),
    ({"mask": torch.ones(2, 3)}, r"mask of the scores' shape \[2, 4\], got \[2, 3\]"),
    ({"values": torch.zeros(2, 5, 3)}, r"got \[2, 5, 3\] and \[2, 4\]"),
    ({"values": torch.zeros(2, 0, 3), "scores": torch.zeros(2, 0)}, "at least one token"),
    ({"scores": torch.zeros(2, 4, dtype=torch.long)}, "floating-point"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_clear_line(operator, change, message):
    arguments = {"values": torch.zeros(2, 4, 3), "scores": torch.zeros(2, 4), "k": 2} | change
    with pytest.raises(ValueError, match=message):
        operator(**arguments)


def test_a_whole_number_of_numpy_is_a_k_as_any_other(operator):
    values, scores, mask = sample(20)
    pooled, expected = (operator(values, scores, k, mask=mask) for k in (np.int64(3), 3))
    assert pooled.values.equal(expected.values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_without_end_are_the_best(dtype):
    scores = torch.arange(200.0).to(dtype)
    scores[:20] = torch.inf
    out = successive_halving_topk(torch.randn(200, 3), scores, 16)
    assert out.mask.all()
    assert (out.positions < 20).all()
    torch.testing.assert_close(out.weights.sum().item(), 16.0)


def test_unknown_names_are_refused_with_the_known_ones():
    values, scores = torch.zeros(4, 3), torch.zeros(4)
    with pytest.raises(ValueError, match="relative, softmax, power; got 'soft'"):
        successive_halving_topk(values, scores, 2, boost="soft")
    with pytest.raises(ValueError, match="none, gate, straight_through; got 'st'"):
        hard_topk(values, scores, 2, gradient="st")
    with pytest.raises(ValueError, match=r"to fit this choice, got \[5, 3\]"):
        hard_topk(values, scores, 2).pool(torch.zeros(5, 3))


def test_powers_at_their_largest_teach_no_score_by_their_weights():
    scores = torch.tensor([70.0, 60.0, 50.0, 55.0], requires_grad=True)  # 20^15 is the last that fits
    weights = successive_halving_topk(torch.eye(4), scores, 2, boost="power").weights
    assert torch.equal(weights, torch.full((4,), 0.5))
    weights[0].backward()
    assert scores.grad.tolist() == [0, 0, 0, 0]


def test_equal_scores_are_pooled_as_a_greedy_k_means_of_directions():
    values = torch.randn(3, 20, 5, dtype=torch.float64)
    out = select_and_merge_topk(values, torch.zeros(3, 20), 5)
    for row in range(3):
        units = torch.nn.functional.normalize(values[row], dim=-1)
        leaders = [0]
        while len(leaders) < 5:  # the farthest from those so far
            leaders.append(int((units @ units[leaders].T).amax(-1).argmin()))
        assert out.slots[row].tolist() == (units @ units[leaders].T).argmax(-1).tolist()
        means = [values[row][out.slots[row] == slot].mean(0) for slot in range(5)]
        torch.testing.assert_close(out.values[row], torch.stack(means))


def test_two_copies_of_a_token_with_half_the_mass_are_one_token():
    values, scores, _ = (x.detach() for x in sample(12, d=6, masked=False))
    once = select_and_merge_topk(values, scores, 6, keep_order=True)
    halves = torch.cat([values, values], 1), torch.cat([scores, scores], 1) - math.log(2)
    twice = select_and_merge_topk(*halves, 6, keep_order=True)
    torch.testing.assert_close((twice.values, twice.scores + math.log(2)), (once.values, once.scores))


def test_a_token_without_a_direction_neither_breaks_nor_moves_the_others():
    values, scores, _ = (x.detach() for x in sample(20, masked=False))
    with_zeros, more = torch.cat([values, torch.zeros_like(values)], 1), torch.cat([scores, scores - 50], 1)
    out = select_and_merge_topk(with_zeros, more, 4)
    torch.testing.assert_close(out.values, select_and_merge_topk(values, scores, 4).values)


def test_tokens_of_negligible_weight_have_no_slot():
    values, scores, mask = sample(200)
    out = select_and_merge_topk(values, scores, 6, mask=mask, temperature=1e-3)
    assert (out.slots[0] >= 0).sum() < 60
    torch.testing.assert_close(out.dense_weights().sum(-1), out.mask.double())
