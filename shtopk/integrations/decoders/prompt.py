"""The arguments that a language model gets with a prompt, and those that no prompt to pool comes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shtopk.integrations.decoders.attention import visible

PACKED = "expected one text in each row, got {}, which no prompt is told apart in; do without packing"


def real_tokens(mask: Tensor, columns: Tensor) -> Tensor:
    """[B, n] bool, True for a token and False for padding.

    Args:
        mask: [B, m] nonzero for a token, or of pairs [B, 1, n, m].
        columns: [n] those of the n tokens among the m, as the mask may know more.
    """
    if mask.dim() == 2:
        return mask.index_select(1, columns.to(mask.device)) != 0
    diagonal = mask[:, 0, torch.arange(len(columns), device=mask.device), columns.to(mask.device)]
    return diagonal >= 0 if mask.is_floating_point() else diagonal != 0


def mask_in(given: Mapping[str, Any]) -> Tensor | None:
    """The attention mask among a model's arguments, of layers that look back over all tokens if there is one for each
    kind of layers; None: all are tokens.
    """
    mask = given.get("attention_mask")
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        got = f"one {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"expected an attention mask [B, n] or [B, 1, n, m], got {got}")
    return mask


def check_prompt(given: Mapping[str, Any], real: Tensor, window: int | None) -> None:
    """Refuse packed texts, and a mask that says more than where padding is.

    Args:
        given: the model's arguments by name.
        real: [B, n] bool, True for a token.
        window: how many columns the model's layers look back; None: all.
    """
    if given.get("cu_seq_lens_q") is not None:
        raise ValueError(PACKED.format("cu_seq_lens_q"))
    position_ids = given.get("position_ids")
    if position_ids is not None and position_ids.dim() == 2:
        side_by_side = real[:, 1:] & real[:, :-1]
        if bool((side_by_side & (position_ids.diff(dim=-1).to(real.device) != 1)).any()):
            raise ValueError(PACKED.format("position_ids that do not rise by one"))
    pairs = mask_in(given)
    if pairs is None or pairs.dim() == 2:
        return
    n = real.shape[1]
    mask = pairs[:, 0, :, :n].to(real.device).expand(len(real), -1, -1)
    seen = mask >= 0 if mask.is_floating_point() else mask != 0
    columns = torch.arange(n, device=real.device).expand_as(real).masked_fill(~real, -1)
    plain = [visible(columns, columns, one) for one in {None, window}]
    if seen.shape[1:] != (n, n) or not any(bool((seen == one)[real].all()) for one in plain):
        raise ValueError(PACKED.format("a mask of pairs of tokens that is not the causal one"))
