"""The weighted sum of the token vectors in each slot, by tensor operations.

Only tokens that carry weight are read, and nothing of the size of the values is written on the way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.backends.memory import empty_like

CHUNK = 2**20  # numbers that backward copies at once on a CPU
CHUNK_ON_GPU = 2**28  # there launches take longer than copies


class Carriers(NamedTuple):
    """The r tokens of a batch that carry weight, slot by slot."""

    token: Tensor  # [r] in 0..B*n-1
    weight: Tensor  # [r]
    slot: Tensor  # [r] in 0..B*k-1, rising

    @classmethod
    def of(cls, weights: Tensor, slots: Tensor, k: int) -> Carriers:
        """Find the carriers of weights and slots [B, n]. A token without a slot, -1, carries nothing."""
        token = ((weights != 0) & (slots >= 0)).flatten().nonzero().squeeze(-1)
        slot, by_slot = (slots.flatten()[token] + k * (token // weights.shape[-1])).sort()
        token = token[by_slot]
        return cls(token, weights.flatten()[token], slot)


def heaviest(weights: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
    """The index [*, k] of the token with the largest weight in each slot. Of equals the first; 0 for an empty slot.

    Args:
        weights: [*, n].
        slots: [*, n], -1 for none.
        mask: [*, k] True where a slot holds a token.
    """
    n, slot = weights.shape[-1], slots.clamp(min=0)
    largest = weights.new_zeros(mask.shape).scatter_reduce(-1, slot, weights, "amax")
    leads = (weights == largest.gather(-1, slot)) & (slots >= 0)
    token = torch.arange(n, device=slots.device).expand_as(slots).masked_fill(~leads, n)
    first = torch.full(mask.shape, n, device=slots.device).scatter_reduce(-1, slot, token, "amin")
    return first.masked_fill(~mask, 0)


def pool_carriers(values: Tensor, carriers: Carriers, k: int) -> Tensor:
    """Sum weight * vector in each slot: values [B, n, d] become [B, k, d]. A slot without carriers is 0."""
    batch, _, d = values.shape
    starts = torch.searchsorted(carriers.slot, torch.arange(batch * k, device=values.device))
    weight = carriers.weight.to(values.dtype)
    pooled = F.embedding_bag(carriers.token, values.reshape(-1, d), starts, mode="sum", per_sample_weights=weight)
    return pooled.view(batch, k, d)


def carrier_gradients(
    gradient: Tensor, values: Tensor, carriers: Carriers, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of values [B * n, d] and of the carriers' weights [r], from that of the
    pooled vectors [B * k, d].
    """
    grad_values = empty_like(values).zero_() if of_values else None
    grad_weights = []
    chunk = CHUNK if values.device.type == "cpu" else CHUNK_ON_GPU
    size = max(1, chunk // values.shape[-1])
    for token, weight, slot in zip(*(part.split(size) for part in carriers), strict=True):
        incoming = gradient.index_select(0, slot)
        if of_weights:
            grad_weights.append(values.index_select(0, token).to(weight.dtype).mul_(incoming).sum(-1))
        if grad_values is not None:
            grad_values.index_copy_(0, token, incoming.mul_(weight.unsqueeze(-1)))
    return grad_values, torch.cat(grad_weights) if of_weights else None
