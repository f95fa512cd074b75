"""Successive halving as one step of autograd: the tournament, then one read of the rows that carry weight.

In eager mode it is an `autograd.Function`. Compilers get it as one operator of torch's, which they take as it is: the
rounds depend on n and on the scores, and traced code would be compiled anew for each number of them. That operator
plays again in backward, instead of keeping tensors whose sizes no compiler can know.
"""

# No `from __future__ import annotations` here: torch.library reads the signatures.
import torch
from torch import Tensor

from shtopk import native, tournament
from shtopk.selection import TopK, bounded
from shtopk.slots import Rows, pool_rows, pool_rows_backward
from shtopk.tournament import Choice, Trees


def halve(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, boost: str, base: float
) -> TopK:
    """`successive_halving_topk` of checked input: values [B, n, d], scores [B, n], mask [B, n] bool or None, and a
    scalar temperature in the scores' dtype, float32 at least."""
    run = successive_halving_op if torch.compiler.is_compiling() else _SuccessiveHalving.apply
    return TopK(*run(values, scores, mask, temperature, k, boost, base))


def _player(*scores: Tensor):
    """The module that plays for such scores."""
    return native if native.serves(*scores) else tournament


def _choose(
    scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, boost: str, base: float
) -> tuple[Choice, Tensor]:
    scores = bounded(scores, mask)
    return _player(scores).choose(scores, temperature, k, boost, base)


def _answer(
    values: Tensor, scores: Tensor, choice: Choice, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of a `TopK`."""
    trees, _, token, weight, slot = choice
    k, filled = positions.shape[-1], trees.filled
    weights = weight.new_zeros(scores.numel()).index_copy_(0, token, weight)
    slots = torch.full((scores.numel(),), -1, device=scores.device).index_copy_(0, token, slot % k)
    slot_scores = trees.scores.masked_fill(~filled, 0).to(scores.dtype)
    return (pool_rows(values, Rows(token, weight, slot), k), slot_scores, filled, positions,
            weights.view(scores.shape), slots.view(scores.shape))  # fmt: skip


def _gradients(
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    values: Tensor,
    scores: Tensor,
    temperature: Tensor,
    choice: Choice,
    boost: str,
    base: float,
    of_values: bool,
    of_choice: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of values, scores and temperature, from those of pooled values, pooled scores and weights."""
    grad_pooled, grad_slots, grad_weights = grads
    trees, _, token, weight, slot = choice
    grad_values, grad_rows = None, None
    if grad_pooled is not None:
        grad_values, grad_rows = pool_rows_backward(
            grad_pooled, values, Rows(token, weight, slot), of_values, of_choice
        )
    if not of_choice:
        return grad_values, None, None
    grad_rows = torch.zeros_like(weight) if grad_rows is None else grad_rows
    if grad_weights is not None:
        grad_rows = grad_rows + grad_weights.flatten()[token]
    grad_slots = torch.zeros_like(trees.scores) if grad_slots is None else grad_slots.masked_fill(~trees.filled, 0)
    grad_slots = grad_slots.to(grad_rows.dtype)
    grad_scores, grad_log_temperature = _player(grad_rows, grad_slots, *trees).score_gradients(
        choice, scores.shape[-1], grad_rows, grad_slots, boost, base
    )
    grad_temperature = grad_log_temperature.to(temperature.device) / temperature
    return grad_values, grad_scores.view(scores.shape).to(scores.dtype), grad_temperature


class _SuccessiveHalving(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, scores, mask, temperature, k, boost, base):
        choice, positions = _choose(scores, mask, temperature, k, boost, base)
        ctx.save_for_backward(values, scores, temperature, *choice.trees, *choice[1:])
        ctx.options = boost, base
        ctx.set_materialize_grads(False)
        out = _answer(values, scores, choice, positions)
        ctx.mark_non_differentiable(out[2], out[3], out[5])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_pooled, grad_slots, _mask, _positions, grad_weights, _slots):
        values, scores, temperature, *kept = ctx.saved_tensors
        choice = Choice(Trees(*kept[:5]), *kept[5:])
        boost, base = ctx.options
        of_values, of_scores, _, of_temperature = ctx.needs_input_grad[:4]
        grads = grad_pooled, grad_slots, grad_weights
        grad_values, grad_scores, grad_temperature = _gradients(
            grads, values, scores, temperature, choice, boost, base, of_values, of_scores or of_temperature
        )
        return grad_values, grad_scores, None, grad_temperature, None, None, None


@torch.library.custom_op("shtopk::successive_halving", mutates_args=())
def successive_halving_op(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, boost: str, base: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`halve` for compilers."""
    return _answer(values, scores, *_choose(scores, mask, temperature, k, boost, base))


@torch.library.custom_op("shtopk::successive_halving_backward", mutates_args=())
def successive_halving_backward_op(
    grad_pooled: Tensor,
    grad_slots: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    scores: Tensor,
    mask: Tensor | None,
    temperature: Tensor,
    boost: str,
    base: float,
    of_values: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `successive_halving_op`'s values (empty where not wanted), scores and temperature."""
    choice, _ = _choose(scores, mask, temperature, grad_slots.shape[-1], boost, base)
    grads = grad_pooled, grad_slots, grad_weights
    grad_values, grad_scores, grad_temperature = _gradients(
        grads, values, scores, temperature, choice, boost, base, of_values, True
    )
    assert grad_scores is not None and grad_temperature is not None
    return values.new_empty(0) if grad_values is None else grad_values, grad_scores, grad_temperature


@successive_halving_op.register_fake
def _(values, scores, mask, temperature, k, boost, base):
    batch, n, d = values.shape
    pooled_scores, slots = scores.new_empty(batch, k), scores.new_empty(batch, n, dtype=torch.long)
    weights = scores.new_empty(batch, n, dtype=torch.promote_types(scores.dtype, torch.float32))
    filled, positions = (torch.empty_like(pooled_scores, dtype=dtype) for dtype in (torch.bool, torch.long))
    return values.new_empty(batch, k, d), pooled_scores, filled, positions, weights, slots


@successive_halving_backward_op.register_fake
def _(grad_pooled, grad_slots, grad_weights, values, scores, mask, temperature, boost, base, of_values):
    grad_values = values.new_empty(values.shape if of_values else 0)
    return grad_values, scores.new_empty(scores.shape), torch.empty_like(temperature)


def _keep(ctx, inputs, output):
    *tensors, _, boost, base = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = boost, base


def _traced_backward(ctx, grad_pooled, grad_slots, _mask, _positions, grad_weights, _slots):
    of_values = ctx.needs_input_grad[0]
    grads = successive_halving_backward_op(
        grad_pooled, grad_slots, grad_weights, *ctx.saved_tensors, *ctx.options, of_values
    )
    return grads[0] if of_values else None, grads[1], None, grads[2], None, None, None


successive_halving_op.register_autograd(_traced_backward, setup_context=_keep)
