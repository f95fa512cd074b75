"""Which vectors see which, above a pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from shtopk.integrations.decoders.layout import Layout


def check_kind(kind: str) -> None:
    """Refuse a kind of attention, by transformers' name, that cannot be told what vectors see."""
    if kind not in ("sdpa", "eager") and (not is_flash(kind) or kind.startswith("paged")):
        raise ValueError(f"expected sdpa, eager or flash attention, got {kind}; set attn_implementation='sdpa'")


def check_window(kind: str, window: int | None) -> None:
    """Refuse a window, of a layer above a pooling, that counts vectors."""
    if is_flash(kind) and window is not None:
        raise ValueError(
            "expected attention that is told columns, got flash attention, whose sliding window would count slots; "
            "set attn_implementation='sdpa'"
        )


def is_flash(kind: str) -> bool:
    """Whether a kind of attention takes a mask of keys alone."""
    return "flash" in kind


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """[B, t, m] whether each of t vectors sees each of m, which stand in these columns, -1 for none.

    Args:
        queries: [B, t] columns.
        keys: [B, m] columns.
        window: how many columns a vector looks back, itself included; None: all.
    """
    queries, keys = queries.unsqueeze(2), keys.unsqueeze(1)
    seen = (keys >= 0) & (keys <= queries)
    return seen if window is None else seen & (queries - keys < window)


def of_prompt(layout: Layout, size: int, window: int | None, dtype: torch.dtype, kind: str) -> Any:
    """The mask of a prompt after a pooling, as a layer takes it.

    Args:
        layout: of the vectors.
        size: keys that the layer attends to; those that are not of the prompt come last.
        window: of the layer.
        dtype: of the vectors.
        kind: of the attention.
    """
    seen = visible(layout.places, layout.places, window)
    hidden = seen & ~ended(layout)
    if is_flash(kind):
        if bool(hidden.any()):
            raise ValueError(
                "expected a compress_mask whose regions end before what follows them, as flash attention takes no "
                "other; set attn_implementation='sdpa'"
            )
        return None if bool(layout.real.all()) else layout.real
    seen = seen & ~hidden
    plain = torch.ones(seen.shape[1:], dtype=torch.bool, device=seen.device).tril()
    if kind == "sdpa" and size == seen.shape[2] and bool((seen == plain).all()):
        return None  # sdpa knows that one, and is faster
    return as_argument(pad(seen, (0, size - seen.shape[2])), dtype, kind)


def of_following(
    queries: Tensor, keys: Tensor, filled: bool, window: int | None, dtype: torch.dtype, kind: str
) -> Any:
    """The mask of what follows a prompt, as a layer takes it.

    Args:
        queries: [B, t] columns of what follows.
        keys: [B, m] columns of all that is seen.
        filled: whether there is a vector at every place.
        window: of the layer.
        dtype: of the vectors.
        kind: of the attention.
    """
    if is_flash(kind):
        return None if filled else keys >= 0
    if filled and window is None and queries.shape[1] == 1:
        return None
    return as_argument(visible(queries, keys, window), dtype, kind)


def ended(layout: Layout) -> Tensor:
    """[B, m, m] False where a vector stands before the end of a region, and would see what was chosen in it."""
    same = layout.regions.unsqueeze(2) == layout.regions.unsqueeze(1)
    return (layout.ends.unsqueeze(1) <= layout.places.unsqueeze(2)) | (same & (layout.regions > 0).unsqueeze(1))


def as_argument(seen: Tensor, dtype: torch.dtype, kind: str) -> Tensor:
    """What a layer takes as its attention_mask: [B, 1, t, m] of what is seen [B, t, m]."""
    seen = (seen | ~seen.any(-1, keepdim=True)).unsqueeze(1)  # where there is no vector, softmax would give NaN
    if kind == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
