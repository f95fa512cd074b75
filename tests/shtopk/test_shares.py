"""k as a share: each row gets that of its own tokens, whatever stands beside it in the batch."""

import math

import pytest
import torch
from encoders import build, with_holes

from shtopk import TopKPooling
from shtopk.integrations.encoder import pool_encoder
from shtopk.operators import OPERATORS

OPTIONS = [{}, {"protected": (0, -1)}, {"keep_order": False}, {"scorer": "strided"}]
LENGTHS = [20, 7, 1, 0, 13, 20, 2]


def batch(*lengths, n=24, d=8):
    """Padded at the end, as protected places count from the beginning."""
    torch.manual_seed(0)
    mask = (torch.arange(n) < torch.tensor(lengths).unsqueeze(1)).long()
    return torch.randn(len(lengths), n, d).requires_grad_(), mask


def pooled_and_gradients(pooling, hidden, mask):
    """What is pooled, and the gradients of the vectors and of the scorer: of a function that tells slots apart."""
    pooling.zero_grad()
    pooled = pooling(hidden, mask)
    weights = torch.arange(1.0, pooled.mask.shape[1] + 1).unsqueeze(-1)
    (pooled.hidden_states / weights).square().sum().backward()
    learnt = [p.grad.flatten() for p in pooling.parameters() if p.grad is not None]
    return pooled, hidden.grad, torch.cat([torch.zeros(1), *learnt])


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize(
    "options", [{}, {"protected": (0, -1)}, {"keep_order": False}, {"scorer": "strided"}], ids=str
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_row_in_a_batch_is_pooled_and_taught_as_if_it_were_alone(operator, options, share):
    pooling = TopKPooling(8, share, operator=operator, **options)
    hidden, mask = batch(*LENGTHS)
    together, gradient, learnt = pooled_and_gradients(pooling, hidden, mask)
    sum_of_rows = torch.zeros_like(learnt)
    for row, length in enumerate(LENGTHS):
        if not length:
            assert not together.mask[row].any() and not together.hidden_states[row].any()
            continue
        cut = hidden.detach()[row : row + 1, :length].clone().requires_grad_()
        alone, its_gradient, its = pooled_and_gradients(pooling, cut, torch.ones(1, length).long())
        slots = alone.mask.shape[1]
        torch.testing.assert_close(together.hidden_states[row, :slots], alone.hidden_states[0])
        torch.testing.assert_close(together.scores[row, :slots], alone.scores[0])
        assert together.positions[row, :slots].equal(alone.positions[0])
        assert together.attention_mask[row, :slots].equal(alone.attention_mask[0])
        assert not together.attention_mask[row, slots:].any() and not together.hidden_states[row, slots:].any()
        torch.testing.assert_close(gradient[row, :length], its_gradient[0])
        sum_of_rows += its
    torch.testing.assert_close(learnt, sum_of_rows, rtol=1e-4, atol=1e-5)  # summed in another order
    dense = together.dense_weights() @ hidden
    torch.testing.assert_close(dense, together.hidden_states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_pooling_of_eval_mode_has_the_same_shares(operator):
    pooling = TopKPooling(8, 0.4, eval_operator=operator).eval()
    hidden, mask = batch(*LENGTHS)
    together = pooling(hidden, mask.flip(1))  # padding in front
    for row, length in ((0, 20), (1, 7), (4, 13)):
        alone = pooling(hidden[row : row + 1, 24 - length :])
        slots = alone.mask.shape[1]
        assert together.mask[row].sum() == alone.mask.sum() == math.ceil(0.4 * length)
        torch.testing.assert_close(together.hidden_states[row, :slots], alone.hidden_states[0])


@pytest.mark.parametrize("share", [0.01, 0.07, 0.1, 1 / 3, 0.5, 0.999])
def test_a_row_of_m_tokens_fills_its_share_of_m_slots_rounded_up(share):
    lengths = [*range(1, 60), 100, 200]
    hidden, mask = batch(*lengths, n=210, d=2)
    pooling = TopKPooling(2, share, operator="hard")
    filled = pooling(hidden, mask).mask
    expected = [math.ceil(round(share * m, 9)) for m in lengths]
    assert filled.sum(1).tolist() == expected == [pooling.slots_for(m) for m in lengths]
    assert filled.shape[1] == math.ceil(share * 210)


def test_protected_tokens_are_among_the_share_and_leave_a_slot_beside_them():
    hidden, mask = batch(20, 10, 4, 1)
    pooled = TopKPooling(8, 0.25, protected=(0, -1))(hidden, mask)
    assert pooled.mask.sum(1).tolist() == [5, 3, 3, 1]
    assert pooled.positions[:3].tolist() == [[0, *pooled.positions[0, 1:4].tolist(), 19, 0],
                                             [0, pooled.positions[1, 1].item(), 9, 0, 0, 0],
                                             [0, pooled.positions[2, 1].item(), 3, 0, 0, 0]]  # fmt: skip


def test_rows_of_one_length_are_pooled_at_once(monkeypatch):
    calls = []
    operator = OPERATORS["hard"]
    counting = operator._replace(topk=lambda values, *more, **options: calls.append(values) or
                                 operator.topk(values, *more, **options))  # fmt: skip
    monkeypatch.setitem(OPERATORS, "hard", counting)
    hidden, mask = batch(11, 11, 11)
    TopKPooling(8, 0.3, operator="hard")(hidden, mask)
    assert len(calls) == 1 and calls[0] is hidden


def test_a_share_may_be_one_of_tokens_that_the_vectors_are_slots_of():
    hidden, mask = batch(6, 6)
    counted = (torch.arange(50) < torch.tensor([[40], [7]])).long()
    pooled = TopKPooling(8, 0.1)(hidden, mask, counted=counted)
    assert pooled.mask.shape == (2, 5) and pooled.mask.sum(1).tolist() == [4, 1]


def test_an_empty_batch_stays_empty():
    assert TopKPooling(8, 0.5)(torch.zeros(0, 6, 8), torch.zeros(0, 6)).hidden_states.shape == (0, 3, 8)


@pytest.mark.parametrize("name", ["bert", "modernbert", "t5", "deberta-v2", "bart"])
def test_between_layers_a_document_does_not_depend_on_its_batch(name):
    model = pool_encoder(build(name, "sdpa"), {1: 0.5, 3: 0.5}, temperature=0.5)
    whole = with_holes(41, 41, 41, 41)
    lengths = (41, 23, 5)
    for row, length in enumerate(lengths):
        whole["attention_mask"][row, length:] = 0
    with torch.no_grad():
        together = model(**whole)
        for row, length in enumerate(lengths):
            alone = model(**{field: x[row : row + 1, :length] for field, x in whole.items()})
            found = together.last_hidden_state[row, together.pooled_attention_mask[row]]
            expected = alone.last_hidden_state[alone.pooled_attention_mask]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # 1e-5 seen: T5's sums are large
    least = 1 + len(model.config.encoder_pooling["protected"])
    assert together.pooled_attention_mask.sum(1).tolist() == [11, 6, max(2, least)]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_pooling_gives_each_row_its_share(backend):
    torch._dynamo.reset()
    pooling = TopKPooling(8, 0.3, protected=(0,))
    compiled = torch.compile(pooling, backend=backend)
    for lengths in ((20, 7, 1, 0), (9, 9, 3, 24)):
        hidden, mask = batch(*lengths)
        expected, *gradients = pooled_and_gradients(pooling, hidden, mask)
        hidden = hidden.detach().requires_grad_()
        found = compiled(hidden, mask)
        pooling.zero_grad()
        (found.hidden_states / torch.arange(1.0, 9.0).unsqueeze(-1)).square().sum().backward()
        torch.testing.assert_close(found.hidden_states, expected.hidden_states)
        assert found.positions.equal(expected.positions) and found.attention_mask.equal(expected.attention_mask)
        torch.testing.assert_close(hidden.grad, gradients[0])


def test_a_compiled_encoder_gives_each_document_its_share():
    torch._dynamo.reset()
    model, whole = pool_encoder(build("bert", "sdpa"), {1: 0.5, 3: 0.5}, temperature=0.5), with_holes(30, 30, 12, 4)
    with torch.no_grad():
        expected, found = model(**whole), torch.compile(model, backend="eager")(**whole)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert found.pooled_attention_mask.equal(expected.pooled_attention_mask)


def test_in_one_graph_a_share_goes_without_a_mask_alone():
    torch._dynamo.reset()
    pooling, (hidden, mask) = TopKPooling(8, 0.3).eval(), batch(20, 7)
    expected = pooling(hidden).hidden_states
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(hidden)[0], expected)
    torch.testing.assert_close(torch.export.export(pooling, (hidden,)).module()(hidden)[0], expected)
    with pytest.raises(Exception, match="a share as k cannot be traced"):
        compiled(hidden, mask)
    for strict in (False, True):
        with pytest.raises(Exception, match="a share as k cannot be traced"):
            torch.export.export(pooling, (hidden, mask), strict=strict)
