"""Assignments, sparse and dense alike: composed, put in order, taken apart and put together again."""

import pytest
import torch
from operator_cases import OPERATORS, gated, sample, softmax_halving

from shtopk import Assignment, hard_topk, iterative_topk, successive_halving_topk


@pytest.fixture(params=OPERATORS)
def topk(request):
    return request.param


SPARSE_AND_DENSE = [(softmax_halving, iterative_topk), (iterative_topk, hard_topk)]


@pytest.mark.parametrize(("one", "other"), [*((topk, topk) for topk in OPERATORS), *SPARSE_AND_DENSE])
def test_two_assignments_one_after_the_other_are_one_of_the_tokens(one, other):
    values, scores, mask = sample(30, batch=3)
    first = one(values, scores, 12, mask=mask)
    second = other(first.values, first.scores, 4, mask=first.mask)
    both = first.assignment.then(second.assignment)
    torch.testing.assert_close(both.dense(), second.dense_weights() @ first.dense_weights())
    torch.testing.assert_close(both.pool(values), second.values)
    assert both.positions.equal(both.dense().argmax(-1).masked_fill(~both.mask, 0))


@pytest.mark.parametrize(("one", "other"), SPARSE_AND_DENSE)
def test_under_autocast_too_assignments_keep_their_dtype(one, other):
    values, scores, mask = sample(30, batch=3, dtype=torch.float32)
    first = one(values, scores, 12, mask=mask)
    second = other(first.values, first.scores, 4, mask=first.mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        both, pooled = first.assignment.then(second.assignment), first.assignment.pool(values)
    torch.testing.assert_close(both.dense(), second.dense_weights() @ first.dense_weights())
    torch.testing.assert_close(pooled, first.values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_amounts_and_other_assignments_may_have_another_dtype(topk, dtype):
    values, scores, mask = sample(20, batch=3, dtype=torch.float32)
    assignment = topk(values, scores, 5, mask=mask).assignment
    amounts = torch.rand(3, 2, 5).to(dtype)
    torch.testing.assert_close(assignment.unpool(amounts), assignment.unpool(amounts.float()), check_dtype=False)
    after = Assignment.of_every_token(assignment.mask, dtype)
    torch.testing.assert_close(assignment.then(after).dense(), assignment.dense(), check_dtype=False)


def test_a_token_without_a_slot_is_in_no_document_whatever_its_weight():
    weights, slots = torch.tensor([[0.5, 0.5, 1.0]] * 2), torch.tensor([[0, 0, 1], [0, 0, -1]])
    assignment = Assignment.of(weights, slots, torch.tensor([[True, True], [True, False]]))
    values = torch.tensor([[1.0, 1.0, 1.0], [100.0, 100.0, 100.0]]).unsqueeze(-1)
    torch.testing.assert_close(assignment.pool(values), assignment.dense() @ values)


def test_slots_in_another_order_hold_what_they_held(topk):
    values, scores, mask = sample(20, batch=3)
    given = topk(values, scores, 6, mask=mask).assignment
    order = torch.stack([torch.randperm(6) for _ in range(3)])
    moved = given.reorder(order)
    torch.testing.assert_close(moved.dense(), given.dense().gather(1, order.unsqueeze(-1).expand(-1, -1, 20)))
    assert moved.positions.tolist() == given.positions.gather(1, order).tolist()


def test_what_slots_have_is_divided_among_their_tokens_without_loss(topk):
    values, scores, mask = sample(20, batch=3)
    given = topk(values, scores, 6, mask=mask).assignment
    attention = torch.rand(3, 5, 6, dtype=torch.float64) * given.mask.unsqueeze(1)
    tokens = given.unpool(attention)
    torch.testing.assert_close(tokens.sum(-1), attention.sum(-1))
    assert (tokens.sum(1)[~mask] == 0).all()
    with pytest.raises(ValueError, match=r"amounts of 6 slots, got \[3, 5, 7\]"):
        given.unpool(torch.rand(3, 5, 7))


def test_protected_tokens_stand_alone_in_front(topk):
    values, scores, mask = sample(20, batch=3, masked=False)
    alone = torch.zeros(3, 2, 20, dtype=torch.bool)
    alone[:, 0, 7], alone[:2, 1, 3] = True, True  # the third document lacks the second
    free = mask & ~alone.any(1)
    kept = topk(values, scores, 5, mask=free).with_protected(values, alone)
    assert kept.positions[:, :2].tolist() == [[7, 3], [7, 3], [7, 0]]
    assert kept.mask[:, :2].tolist() == [[True, True], [True, True], [True, False]]
    torch.testing.assert_close(kept.pool(values), kept.values)
    assert torch.equal(kept.values[:, 0], values[:, 7])


def test_pieces_of_documents_are_assigned_as_the_documents(topk):
    values, scores, mask = sample(24, batch=4, masked=False)
    pieces = topk(values, scores, 3, mask=mask).assignment
    # Pieces 0 and 1 are the first document, 2 and 3 the second.
    document, number = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    piece, place = torch.arange(4).repeat_interleave(24), torch.arange(24).repeat(4)
    targets = document[piece], number[piece] * 24 + place
    numbers = number.unsqueeze(-1) * 3 + torch.arange(3)
    assembled = pieces.reassemble((piece, place), targets, numbers, document, (2, 48, 6))
    expected = torch.stack([torch.block_diag(*pieces.dense()[i : i + 2]) for i in (0, 2)])
    torch.testing.assert_close(assembled.dense(), expected)
    assert assembled.positions.tolist() == expected.argmax(-1).tolist()


def test_every_token_in_its_place_changes_nothing():
    values, _, mask = sample(9, batch=3)
    given = Assignment.of_every_token(mask, torch.float64)
    torch.testing.assert_close(given.pool(values), values * mask.unsqueeze(-1))
    assert given.positions[mask].tolist() == torch.arange(9).expand(3, 9)[mask].tolist()


def test_the_tokens_of_a_slot_are_those_with_a_weight_there(topk):
    values, scores, mask = sample(20, batch=1, masked=False)
    given = topk(values, scores, 4, mask=mask).assignment
    row = given.map(lambda x: x[0])
    for slot, weights in enumerate(given.dense()[0]):
        expected = {token: weight for token, weight in enumerate(weights.tolist()) if weight > 0.01}
        assert dict(row.tokens_of(slot, smallest=0.01)) == pytest.approx(expected)


@pytest.mark.parametrize("operator", [one for one in OPERATORS if one is not hard_topk])  # whose weights have none
def test_the_entropy_has_a_gradient_where_tokens_have_no_weight(operator):
    values, scores, mask = sample(12)
    operator(values, scores, 3, mask=mask).assignment.entropy().sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_whole_numbers_are_not_pooled(operator):
    values, scores, _ = sample(12)
    with pytest.raises(ValueError, match=r"floating-point values, got torch\.int64; of whole numbers gather"):
        operator(values, scores, 3).pool(torch.zeros(4, 12, 1, dtype=torch.long))


def test_entropy_is_none_for_a_hard_choice_and_that_of_the_weights_for_a_soft_one():
    values, scores, mask = sample(20, batch=3)
    for hard in (hard_topk, gated):
        torch.testing.assert_close(hard(values, scores, 4, mask=mask).assignment.entropy(), torch.zeros(3).double())
    soft = iterative_topk(values, scores, 4, mask=mask)
    expected = torch.special.entr(soft.weights).sum((-2, -1)) / soft.mask.sum(-1).clamp(min=1)
    torch.testing.assert_close(soft.assignment.entropy(), expected)
    even = successive_halving_topk(torch.eye(4), torch.zeros(4), 2, temperature=1.0).assignment
    assert even.entropy().item() == pytest.approx(torch.tensor(2.0).log().item())
