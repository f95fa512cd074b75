"""The weighted sum of token vectors within each slot: only the rows that carry weight are read, each once.

Nothing of the size of the values is written on the way, and backward keeps a reference to the values and O(n) numbers.
Which rows carry weight depends on the data, so compilers get the sum as one operator of torch's, taken as it is.
"""

# No `from __future__ import annotations` here: torch.library reads the signatures.
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk import native
from shtopk.memory import in_huge_pages

CHUNK = 2**20  # numbers that backward copies at once


class Rows(NamedTuple):
    """The r rows of values [B * n, d] that carry weight, slot by slot."""

    token: Tensor  # [r] in 0..B*n-1
    weight: Tensor  # [r]
    slot: Tensor  # [r] in 0..B*k-1, rising


def pool_rows(values: Tensor, rows: Rows, k: int) -> Tensor:
    """Sum weight * row within each slot: values [B, n, d] -> [B, k, d]; 0 in a slot without rows."""
    batch, _, d = values.shape
    starts = torch.searchsorted(rows.slot, torch.arange(batch * k, device=values.device))
    weight = rows.weight.to(values.dtype)
    pooled = F.embedding_bag(rows.token, values.reshape(-1, d), starts, mode="sum", per_sample_weights=weight)
    return pooled.view(batch, k, d)


def pool_rows_backward(
    grad: Tensor, values: Tensor, rows: Rows, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the values [B, n, d] and of the rows' weights [r], None for one that is not wanted."""
    d = grad.shape[-1]
    grad, flat = grad.reshape(-1, d), values.reshape(-1, d)
    if native.serves(grad, flat, rows.weight):
        grad_values, grad_weight = native.pool_gradients(grad, flat, *rows, of_values, of_weights)
        return None if grad_values is None else grad_values.view(values.shape), grad_weight
    grad_values = in_huge_pages(torch.empty_like(flat)).zero_() if of_values else None
    grad_weights = []
    size = max(1, CHUNK // d)
    for token, weight, slot in zip(*(part.split(size) for part in rows), strict=True):
        incoming = grad.index_select(0, slot)
        if of_weights:
            grad_weights.append(flat.index_select(0, token).to(weight.dtype).mul_(incoming).sum(-1))
        if grad_values is not None:
            grad_values.index_copy_(0, token, incoming.mul_(weight.unsqueeze(-1)))
    return (None if grad_values is None else grad_values.view(values.shape),
            torch.cat(grad_weights) if of_weights else None)  # fmt: skip


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """Sum weights * values within each slot: values [B, n, d], weights and slots [B, n] -> [B, k, d].

    A token of weight 0 is not read and gets no gradient.
    """
    if torch.compiler.is_compiling():
        return pool_by_slot_op(values, weights, slots, k)
    return _PoolBySlot.apply(values, weights, slots, k)


def _rows(weights: Tensor, slots: Tensor, k: int) -> Rows:
    token = weights.flatten().nonzero().squeeze(-1)
    slot, by_slot = (slots.flatten()[token] + k * (token // weights.shape[-1])).sort()
    token = token[by_slot]
    return Rows(token, weights.flatten()[token], slot)


def _backward(
    grad: Tensor, values: Tensor, rows: Rows, shape: torch.Size, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the values and of the weights, whose shape is [B, n]."""
    grad_values, of_rows = pool_rows_backward(grad, values, rows, of_values, of_weights)
    if of_rows is None:
        return grad_values, None
    return grad_values, of_rows.new_zeros(shape.numel()).index_copy_(0, rows.token, of_rows).view(shape)


class _PoolBySlot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weights, slots, k):
        rows = _rows(weights, slots, k)
        ctx.save_for_backward(values, *rows)
        ctx.shape = weights.shape
        return pool_rows(values, rows, k)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        values, *rows = ctx.saved_tensors
        return *_backward(grad, values, Rows(*rows), ctx.shape, *ctx.needs_input_grad[:2]), None, None


@torch.library.custom_op("shtopk::pool_by_slot", mutates_args=())
def pool_by_slot_op(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """`pool_by_slot` for compilers."""
    return pool_rows(values, _rows(weights, slots, k), k)


@torch.library.custom_op("shtopk::pool_by_slot_backward", mutates_args=())
def pool_by_slot_backward_op(
    grad: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `pool_by_slot_op`'s values and weights, empty for one that is not wanted."""
    rows = _rows(weights, slots, grad.shape[1])
    grad_values, grad_weights = _backward(grad, values, rows, weights.shape, of_values, of_weights)
    unwanted = grad.new_empty(0)
    return (unwanted if grad_values is None else grad_values), (unwanted if grad_weights is None else grad_weights)


@pool_by_slot_op.register_fake
def _(values, weights, slots, k):
    return values.new_empty(values.shape[0], k, values.shape[2])


@pool_by_slot_backward_op.register_fake
def _(grad, values, weights, slots, of_values, of_weights):
    return (values.new_empty(values.shape if of_values else 0),
            weights.new_empty(weights.shape if of_weights else 0))  # fmt: skip


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _traced_backward(ctx, grad):
    needed = ctx.needs_input_grad[:2]
    grads = pool_by_slot_backward_op(grad, *ctx.saved_tensors, *needed)
    return *(x if wanted else None for x, wanted in zip(grads, needed, strict=True)), None, None


pool_by_slot_op.register_autograd(_traced_backward, setup_context=_keep)


@torch.library.custom_op("shtopk::heaviest", mutates_args=())
def heaviest(weights: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
    """[*, k] index of the token with the largest weight in each slot, the first of equals; 0 for an empty slot.

    Of weights and slots [*, n] and the slots' mask [*, k]. An operator of its own, since torch's compiler for CPUs got
    the two scatters wrong where it made one loop of them and of what reads them.
    """
    n, slot = weights.shape[-1], slots.clamp(min=0)
    largest = weights.new_zeros(mask.shape).scatter_reduce(-1, slot, weights, "amax")
    leads = (weights == largest.gather(-1, slot)) & (slots >= 0)
    token = torch.arange(n, device=slots.device).expand_as(slots).masked_fill(~leads, n)
    first = torch.full(mask.shape, n, device=slots.device).scatter_reduce(-1, slot, token, "amin")
    return first.masked_fill(~mask, 0)


@heaviest.register_fake
def _(weights, slots, mask):
    return slots.new_empty(mask.shape)
