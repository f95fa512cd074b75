"""Successive halving and pooling for `torch.compile`: each step is one custom operator, which the compiler does not
trace.

Traced code would be compiled again and again, since the number of tokens that take part depends on data. For the same
reason a backward pass chooses once more: what it needs from the forward pass has sizes that no compiler can know.
"""

# No `from __future__ import annotations` here: torch.library reads the signatures.
import torch
from torch import Tensor

from shtopk import backends
from shtopk.backends import Gradients, Wanted, carriers, clusters
from shtopk.rule import Rule


def _given(x: Tensor | None, like: Tensor) -> Tensor:
    """The tensor, contiguous as a compiler expects it, or an empty one for None: a custom operator has to return a
    tensor for every gradient.
    """
    return like.new_empty(0) if x is None else x.contiguous()


def _fake_answer(values: Tensor, scores: Tensor, k: int) -> tuple[Tensor, ...]:
    batch, n, d = values.shape
    slot_scores, slots = scores.new_empty(batch, k), scores.new_empty(batch, n, dtype=torch.long)
    weights = scores.new_empty(batch, n, dtype=torch.promote_types(scores.dtype, torch.float32))
    filled, positions = (torch.empty_like(slot_scores, dtype=dtype) for dtype in (torch.bool, torch.long))
    return values.new_empty(batch, k, d), slot_scores, filled, positions, weights, slots


@torch.library.custom_op("shtopk::successive_halving", mutates_args=())
def successive_halving(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, relative: bool, log_base: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Successive halving as a custom operator. Returns the fields of a `backends.Answer`."""
    rule = Rule(relative, log_base)
    return (*backends.pick(values, scores).forward(values, scores, mask, temperature, k, rule)[0],)


@successive_halving.register_fake
def _(values, scores, mask, temperature, k, relative, log_base):
    return _fake_answer(values, scores, k)


@torch.library.custom_op("shtopk::successive_halving_backward", mutates_args=())
def successive_halving_backward(
    grad_values: Tensor,
    grad_scores: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    scores: Tensor,
    mask: Tensor | None,
    temperature: Tensor,
    relative: bool,
    log_base: float,
    of_values: bool,
    of_temperature: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of values, scores and temperature; the first and the last are empty where not wanted."""
    rule, backend = Rule(relative, log_base), backends.pick(values, scores)
    saved = backend.save(values, scores, mask, temperature, grad_scores.shape[-1], rule)
    gradients, wanted = Gradients(grad_values, grad_scores, grad_weights), Wanted(of_values, True, of_temperature)
    grad_of_values, grad_of_scores, grad_of_temperature = backend.backward(saved, gradients, rule, wanted)
    assert grad_of_scores is not None
    return _given(grad_of_values, values), grad_of_scores.to(scores.dtype), _given(grad_of_temperature, temperature)


@successive_halving_backward.register_fake
def _(
    grad_values, grad_scores, grad_weights, values, scores, mask, temperature, relative, log_base, of_values,
    of_temperature,
):  # fmt: skip
    return (values.new_empty(values.shape if of_values else 0), scores.new_empty(scores.shape),
            temperature.new_empty(temperature.shape if of_temperature else 0))  # fmt: skip


def _keep_halving(ctx, inputs, output):
    *tensors, _, relative, log_base = inputs
    ctx.save_for_backward(*tensors)
    ctx.rule = relative, log_base


def _backward_of_halving(ctx, grad_values, grad_scores, _mask, _positions, grad_weights, _slots):
    of_values, of_temperature = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    gradients = successive_halving_backward(
        grad_values, grad_scores, grad_weights, *ctx.saved_tensors, *ctx.rule, of_values, of_temperature
    )
    return (gradients[0] if of_values else None, gradients[1], None, gradients[2] if of_temperature else None,
            None, None, None)  # fmt: skip


successive_halving.register_autograd(_backward_of_halving, setup_context=_keep_halving)


@torch.library.custom_op("shtopk::select_and_merge", mutates_args=())
def select_and_merge(
    values: Tensor, scores: Tensor, logits: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Select and merge as a custom operator. Returns the fields of a `backends.Answer`."""
    return (*backends.pick(values, scores).merge(values, scores, logits, k)[0],)


@select_and_merge.register_fake
def _(values, scores, logits, k):
    return _fake_answer(values, scores, k)


def _keep_merging(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2], output[4], output[5])


def _backward_of_merging(ctx, grad_values, grad_scores, _mask, _positions, grad_weights, _slots):
    values, scores, weights, slots = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    of_values, of_weights = pool_by_slot_backward(grad_values, values, weights, slots, wanted, True)
    gradients = clusters.score_gradients(scores, weights, slots, grad_weights + of_weights, grad_scores)
    return of_values if wanted else None, *gradients, None


select_and_merge.register_autograd(_backward_of_merging, setup_context=_keep_merging)


@torch.library.custom_op("shtopk::pool_by_slot", mutates_args=())
def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """`slots.pool_by_slot` as a custom operator."""
    return backends.pick(values, weights).pool(values, weights, slots, k)[0]


@pool_by_slot.register_fake
def _(values, weights, slots, k):
    return values.new_empty(values.shape[0], k, values.shape[2])


@torch.library.custom_op("shtopk::pool_by_slot_backward", mutates_args=())
def pool_by_slot_backward(
    gradient: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of values and weights; one that is not wanted is empty."""
    backend = backends.pick(values, weights)
    saved = backend.pool_save(values, weights, slots, gradient.shape[1])
    grad_values, grad_weights = backend.pool_backward(saved, gradient, of_values, of_weights)
    return _given(grad_values, values), _given(grad_weights, weights)


@pool_by_slot_backward.register_fake
def _(gradient, values, weights, slots, of_values, of_weights):
    return values.new_empty(values.shape if of_values else 0), weights.new_empty(weights.shape if of_weights else 0)


def _keep_pooling(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _backward_of_pooling(ctx, gradient):
    wanted = ctx.needs_input_grad[:2]
    gradients = pool_by_slot_backward(gradient, *ctx.saved_tensors, *wanted)
    return *(x if w else None for x, w in zip(gradients, wanted, strict=True)), None, None


pool_by_slot.register_autograd(_backward_of_pooling, setup_context=_keep_pooling)


@torch.library.custom_op("shtopk::heaviest", mutates_args=())
def heaviest(weights: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
    """`backends.carriers.heaviest` as a custom operator.

    torch's compiler for CPUs got the result wrong: it merged the two scatters and the code that reads them into one
    loop.
    """
    return carriers.heaviest(weights, slots, mask)


@heaviest.register_fake
def _(weights, slots, mask):
    return slots.new_empty(mask.shape)
