"""The weighted sum of token vectors within each slot, as one step of autograd, and between all tokens and slots."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk import backends, compiled, onnx
from shtopk.autocast import without_autocast
from shtopk.tracing import form


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """Sum the weighted vectors of each slot: values [B, n, d], weights and slots [B, n] become [B, k, d].

    A token of weight 0 is not read and gets no gradient.
    """
    run = form(_PoolBySlot.apply, compiled.pool_by_slot, onnx.pool_by_slot)
    return run(values, weights, slots, k)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a @ b of two matrices, in the wider of their dtypes, which autocast does not change."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    with without_autocast(a.device.type):
        return a.to(dtype) @ b.to(dtype)


class _PoolBySlot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weights, slots, k):
        ctx.backend = backends.pick(values, weights)
        pooled, saved = ctx.backend.pool(values, weights, slots, k)
        ctx.save_for_backward(*saved)
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return *ctx.backend.pool_backward(ctx.saved_tensors, gradient, *ctx.needs_input_grad[:2]), None, None
