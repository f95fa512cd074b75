"""The weighted sum of token vectors within each slot, with a backward of its own.

Only the rows that carry weight are read, each once. Which these are depends on the data, so compilers get it as one
operator of torch's, which they take as it is.
"""

# No `from __future__ import annotations` here: torch.library reads the signatures.
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**20  # numbers that backward copies at once


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """Sum weights * values within each slot: values [B, n, d], weights and slots [B, n] -> [B, k, d].

    Nothing of the size of the values is written on the way, and backward keeps a reference to the values and O(n)
    numbers. A token of weight 0 is not read and gets no gradient.
    """
    if torch.compiler.is_compiling():
        return pool_by_slot_op(values, weights, slots, k)
    return _PoolBySlot.apply(values, weights, slots, k)


def _rows(weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices in B * n of the tokens that carry weight, slot by slot, and the slots in B * k."""
    rows = weights.flatten().nonzero().squeeze(-1)
    bag, by_bag = (slots.flatten()[rows] + k * (rows // weights.shape[-1])).sort()
    return rows[by_bag], bag


def _pool(values: Tensor, weights: Tensor, rows: Tensor, bag: Tensor, k: int) -> Tensor:
    batch, _, d = values.shape
    starts = torch.searchsorted(bag, torch.arange(batch * k, device=bag.device))
    share = weights.flatten()[rows].to(values.dtype)
    pooled = F.embedding_bag(rows, values.reshape(-1, d), starts, mode="sum", per_sample_weights=share)
    return pooled.view(batch, k, d)


def _gradients(
    grad: Tensor, values: Tensor, weights: Tensor, rows: Tensor, bag: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor, Tensor]:
    """Of the values and of the weights, an empty tensor for one that is not wanted."""
    d = grad.shape[-1]
    grad, flat, share = grad.reshape(-1, d), values.reshape(-1, d), weights.flatten()
    grad_values = torch.zeros_like(flat) if of_values else flat.new_empty(0)
    grad_weights = torch.zeros_like(share) if of_weights else share.new_empty(0)
    size = max(1, CHUNK // d)
    for some, its_bag in zip(rows.split(size), bag.split(size), strict=True):
        incoming = grad.index_select(0, its_bag)
        if of_weights:
            products = flat.index_select(0, some).to(share.dtype).mul_(incoming)
            grad_weights.index_copy_(0, some, products.sum(-1))
        if of_values:
            grad_values.index_copy_(0, some, incoming.mul_(share[some].unsqueeze(-1)))
    return grad_values.view(values.shape if of_values else 0), grad_weights.view(weights.shape if of_weights else 0)


class _PoolBySlot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weights, slots, k):
        rows, bag = _rows(weights, slots, k)
        ctx.save_for_backward(values, weights, rows, bag)
        return _pool(values, weights, rows, bag, k)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return _wanted(ctx, _gradients(grad, *ctx.saved_tensors, *ctx.needs_input_grad[:2]))


@torch.library.custom_op("shtopk::pool_by_slot", mutates_args=())
def pool_by_slot_op(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """`pool_by_slot` for compilers."""
    return _pool(values, weights, *_rows(weights, slots, k), k)


@torch.library.custom_op("shtopk::pool_by_slot_backward", mutates_args=())
def pool_by_slot_backward_op(
    grad: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `pool_by_slot_op`'s values and weights."""
    return _gradients(grad, values, weights, *_rows(weights, slots, grad.shape[1]), of_values, of_weights)


@pool_by_slot_op.register_fake
def _(values, weights, slots, k):
    return values.new_empty(values.shape[0], k, values.shape[2])


@pool_by_slot_backward_op.register_fake
def _(grad, values, weights, slots, of_values, of_weights):
    return (values.new_empty(values.shape if of_values else 0),
            weights.new_empty(weights.shape if of_weights else 0))  # fmt: skip


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx, grad):
    return _wanted(ctx, pool_by_slot_backward_op(grad, *ctx.saved_tensors, *ctx.needs_input_grad[:2]))


def _wanted(ctx, grads: tuple[Tensor, Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of all four arguments."""
    return *(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=False)), None, None


pool_by_slot_op.register_autograd(_backward, setup_context=_keep)
