"""Encode documents of any length with an encoder that has few positions: in windows, all tokens kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def encode_in_windows(
    encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, window: int, windows_at_once: int = 8
) -> Tensor:
    """Token vectors [B, L, d] of documents [B, L] that may be longer than the encoder's positions.

    A row of l > window real tokens is cut into ceil(l / window) windows of nearly equal size, side by side. How a row
    is cut depends on its own tokens alone, and no window holds padding of its document, so a row's vectors do not
    depend on what it is batched with. Where L <= window, this is one plain call of the encoder.

    Args:
        encoder: called as encoder(input_ids=..., attention_mask=...), returns an output with last_hidden_state.
        input_ids: [B, L] token ids.
        attention_mask: [B, L] nonzero for real tokens; padding may stand anywhere.
        window: tokens that the encoder sees at once, >= 1.
        windows_at_once: windows per call of the encoder, >= 1, a bound on memory.

    Returns:
        [B, L, d], zero at padding (where documents were cut).

    Raises:
        ValueError: a window or a number of windows below 1.
    """
    for name, value in (("window", window), ("windows_at_once", windows_at_once)):
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    if input_ids.shape[1] <= window:
        return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    real = attention_mask != 0
    length = real.sum(-1, keepdim=True)  # [B, 1]
    windows = -(-length // window)  # [B, 1] of the row; none for an empty row, whose attention would be undefined
    size = (-(-length // windows.clamp(min=1))).clamp(min=1)  # [B, 1] tokens per window
    rank = real.cumsum(-1) - 1  # [B, L] how many real tokens stand before
    first = windows.cumsum(0) - windows  # [B, 1] number of the row's first window
    index = (first + rank // size)[real]  # [T] window of each real token
    place = (rank % size)[real]  # [T] its place there

    # Where all rows are empty the encoder still gets one window, whose vectors nobody reads: few can do with none.
    shape = (max(1, int(windows.sum())), int(size.max()))
    ids = input_ids.new_zeros(shape).index_put((index, place), input_ids[real])
    mask = attention_mask.new_zeros(shape).index_put((index, place), attention_mask[real])
    vectors = torch.cat([
        encoder(input_ids=some_ids, attention_mask=some_mask).last_hidden_state
        for some_ids, some_mask in zip(ids.split(windows_at_once), mask.split(windows_at_once), strict=True)
    ])  # fmt: skip
    out = vectors.new_zeros(*input_ids.shape, vectors.shape[-1])
    return out.index_put(real.nonzero(as_tuple=True), vectors[index, place])
