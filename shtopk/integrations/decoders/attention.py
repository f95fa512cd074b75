"""Which vectors see which, above a pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk.integrations.decoders.layout import Layout


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """[B, t, m] whether each of the last t of m vectors sees each of the m.

    Args:
        queries: [B, t] columns of the last t.
        keys: [B, m] columns of all, in order; -1 for none.
        window: how many columns a vector looks back, itself included; None: all.
    """
    t, m = queries.shape[1], keys.shape[1]
    order = torch.ones(t, m, dtype=torch.bool, device=keys.device).tril(m - t)
    seen = order & (keys >= 0).unsqueeze(1)
    if window is not None:
        seen = seen & (queries.unsqueeze(2) - keys.unsqueeze(1) < window)
    return seen


def ended(layout: Layout) -> Tensor:
    """[B, m, m] False where a vector stands before the end of a region, and would see what was chosen in it."""
    same = layout.regions.unsqueeze(2) == layout.regions.unsqueeze(1)
    return (layout.ends.unsqueeze(1) <= layout.places.unsqueeze(2)) | (same & (layout.regions > 0).unsqueeze(1))


def as_argument(seen: Tensor, dtype: torch.dtype, kind: str) -> Tensor:
    """What a layer takes as its attention_mask.

    Args:
        seen: [B, t, m] bool.
        dtype: of the vectors.
        kind: of the attention: sdpa or eager.
    """
    t, m = seen.shape[1:]
    alone = torch.eye(t, dtype=torch.bool, device=seen.device) & ~seen.any(-1, keepdim=True)
    seen = seen.clone()
    seen[:, :, m - t :] |= alone  # where there is no vector, a softmax over nothing would be NaN
    seen = seen.unsqueeze(1)
    if kind == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
