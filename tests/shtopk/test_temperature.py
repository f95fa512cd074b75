"""The temperature of the operators: its limit, its default, its gradient, and what is not above 0."""

from functools import partial

import pytest
import torch
from operator_cases import OPERATORS, SUMS_TO_ONE, gated, relative_halving, sample, softmax_halving, straight_through

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

pytestmark = pytest.mark.usefixtures("backend")
BOOSTS = {"relative": 0.5, "softmax": 0.3, "power": 1.0}
HALVING = [(partial(successive_halving_topk, boost=boost), temperature) for boost, temperature in BOOSTS.items()]


@pytest.mark.parametrize("operator", [softmax_halving, relative_halving, select_and_merge_topk, iterative_topk])
def test_the_limit_of_zero_temperature_is_hard_topk(operator):
    values, scores, mask = sample(50)
    out, hard = operator(values, scores, 6, mask=mask, temperature=1e-16), hard_topk(values, scores, 6, mask=mask)
    torch.testing.assert_close((out.values, out.scores), (hard.values, hard.scores))
    assert out.positions.tolist() == hard.positions.tolist()


@pytest.mark.parametrize("operator", [successive_halving_topk, select_and_merge_topk])
def test_the_temperature_is_1_by_default_in_units_of_the_scores(operator):
    values, scores, mask = sample(40)
    default = operator(values, scores, 4, mask=mask)
    assert torch.equal(default.weights, operator(values, scores, 4, mask=mask, temperature=1.0).weights)
    halved = operator(values, scores / 2, 4, mask=mask, temperature=0.5)
    torch.testing.assert_close(default.weights, halved.weights)


@pytest.mark.parametrize(("operator", "temperature"), [
    *HALVING, (select_and_merge_topk, 0.7), (iterative_topk, 0.4), (gated, 0.4),
])  # fmt: skip
def test_gradcheck_of_the_temperature(operator, temperature):
    values, scores, mask = (x.detach() for x in sample(11))
    temperature = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: operator(values, scores, 3, mask=mask, temperature=t)[:2], temperature)


def test_straight_through_teaches_the_temperature_as_a_softmax_does_whatever_is_masked():
    values, scores, mask = (x.detach() for x in sample(11))
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    out = straight_through(values, scores, 3, mask=mask, temperature=temperature)
    (found,) = torch.autograd.grad(out.values.sum(), temperature)
    soft = (scores / temperature).masked_fill(~mask, -1e9).softmax(-1) * (out.assignment.slots >= 0)
    (expected,) = torch.autograd.grad((soft.unsqueeze(-1) * values).sum(), temperature)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("operator", SUMS_TO_ONE)
def test_a_temperature_in_a_tensor_that_is_not_above_0_is_as_hard_as_can_be(operator):
    values, scores, mask = sample(11)
    chosen = hard_topk(values, scores, 3, mask=mask)
    for temperature in (0.0, -1.0):
        out = operator(values, scores, 3, mask=mask, temperature=torch.tensor(temperature))
        assert out.positions.equal(chosen.positions)
        torch.testing.assert_close(out.values, chosen.values)


@pytest.mark.parametrize("operator", [select_and_merge_topk, gated, straight_through])
@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min])
def test_a_token_ruled_out_by_its_score_leaves_the_temperature_of_the_others(operator, lowest):
    values, scores = torch.eye(5).unsqueeze(0), torch.tensor([[2.0, 1.9, 1.0, 0.9, -1e9]])
    expected = operator(values, scores, 2, temperature=0.01)
    found = operator(values, scores.masked_fill(scores < 0, lowest), 2, temperature=0.01)
    torch.testing.assert_close(found.weights, expected.weights)


@pytest.mark.parametrize("operator", [operator for operator in OPERATORS if operator is not hard_topk])
@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min])
def test_the_gradient_of_a_temperature_is_finite_however_low_it_and_a_score_are(operator, lowest):
    values, scores = torch.randn(1, 5, 4), torch.tensor([[2.0, 1.9, 1.0, 0.9, lowest]])
    for number in (0.5, 1e-8) if operator is iterative_topk else (0.5, 1e-16, 1e-25, 0.0):  # it divides squares
        temperature = torch.tensor(number, requires_grad=True)
        operator(values, scores, 2, temperature=temperature).values.square().sum().backward()
        assert temperature.grad.isfinite(), number
