"""Documents of any length for an encoder that has few positions: read in windows, nothing cut off."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from shtopk import TopKPooling
from shtopk.pooling import PooledTokens
from shtopk.selection import TopK

from .configuration_topk_pooling import PooledBackboneConfig, check_two_steps


def pool_document(
    encoder: nn.Module,
    pooling: TopKPooling,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    config: PooledBackboneConfig,
) -> PooledTokens:
    """Encode documents [B, L] of any length, attention_mask [B, L] (None: all real), and pool each to k vectors."""
    if input_ids is None:
        raise ValueError("expected input_ids [B, L], got None")
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(f"expected input_ids [B, L] of at least one token, got {list(input_ids.shape)}")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    # T5's n_positions is no limit, but what it was trained on; all of a long document at once would not fit.
    trained = getattr(encoder.config, "n_positions", None)
    window = config.window or positions_of(encoder.config) or trained or input_ids.shape[1]
    if config.window_k is not None:
        return pool_in_windows(
            encoder, pooling, input_ids, attention_mask, window, config.window_k, config.windows_at_once
        )
    tokens = encode_in_windows(encoder, input_ids, attention_mask, window, config.windows_at_once)
    return pooling(tokens, attention_mask)


class Windows(NamedTuple):
    """A batch of documents, cut into W windows of at most s tokens.

    A row of l > window real tokens is cut into ceil(l / window) windows of nearly equal size, side by side. How a row
    is cut depends on its own tokens alone, and no window holds padding of its document, so what becomes of a row does
    not depend on what it is batched with.
    """

    input_ids: Tensor  # [W, s]
    attention_mask: Tensor  # [W, s]
    row: Tensor  # [W] the document that a window is of
    number: Tensor  # [W] how many windows of its document stand before
    index: Tensor  # [T] the window of each real token of the batch, row by row
    place: Tensor  # [T] its place in there

    @classmethod
    def cut(cls, input_ids: Tensor, attention_mask: Tensor, window: int) -> Windows:
        """Cut documents [B, L] whose padding may stand anywhere; window >= 1."""
        real = attention_mask != 0
        length = real.sum(-1, keepdim=True)  # [B, 1]
        windows = -(-length // window)  # [B, 1] of the row; none for an empty row, whose attention would be undefined
        size = (-(-length // windows.clamp(min=1))).clamp(min=1)  # [B, 1] tokens per window
        rank = real.cumsum(-1) - 1  # [B, L] how many real tokens stand before
        first = windows.cumsum(0) - windows  # [B, 1] number of the row's first window
        index = (first + rank // size)[real]
        place = (rank % size)[real]

        # Where all rows are empty there still is one window, whose vectors nobody reads: few encoders do with none.
        shape = (max(1, int(windows.sum())), int(size.max()))
        row = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(windows.squeeze(-1))
        row = row if len(row) else row.new_zeros(1)
        return cls(
            input_ids=input_ids.new_zeros(shape).index_put((index, place), input_ids[real]),
            attention_mask=attention_mask.new_zeros(shape).index_put((index, place), attention_mask[real]),
            row=row,
            number=torch.arange(len(row), device=row.device) - first.squeeze(-1)[row],
            index=index,
            place=place,
        )

    def split(self, at_once: int):
        """Pairs of input_ids and attention_mask, of so many windows at most."""
        return zip(self.input_ids.split(at_once), self.attention_mask.split(at_once), strict=True)


def encode_in_windows(
    encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, window: int, windows_at_once: int = 8
) -> Tensor:
    """Token vectors [B, L, d] of documents [B, L] that may be longer than the encoder's positions.

    Where L <= window, this is one plain call of the encoder; else the documents are cut, see `Windows`.

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
    _check(window=window, windows_at_once=windows_at_once)
    if input_ids.shape[1] <= window:
        return _encode(encoder, input_ids, attention_mask)
    windows = Windows.cut(input_ids, attention_mask, window)
    vectors = torch.cat([
        _encode(encoder, ids, mask) for ids, mask in windows.split(windows_at_once)
    ])  # fmt: skip
    real = (attention_mask != 0).nonzero(as_tuple=True)
    out = vectors.new_zeros(*input_ids.shape, vectors.shape[-1])
    return out.index_put(real, vectors[windows.index, windows.place])


def pool_in_windows(
    encoder: nn.Module,
    pooling: TopKPooling,
    input_ids: Tensor,
    attention_mask: Tensor,
    window: int,
    window_k: int,
    windows_at_once: int = 8,
) -> PooledTokens:
    """Pool documents [B, L] in two steps: every window to window_k vectors, then those of a document to k.

    The second step sees window_k vectors of a window instead of its tokens, which are not kept. A document of one
    window goes through both steps too, so that its result does not depend on what it is batched with.

    Args:
        encoder, input_ids, attention_mask, window, windows_at_once: see `encode_in_windows`.
        pooling: scores in both steps; without protected tokens, and with an operator that puts a token into one slot
            (all but iterative top-k).
        window_k: vectors to keep of each window, >= 1.

    Returns:
        PooledTokens, as of one pooling over all L tokens; a token's weight is the product of its weights in the steps.

    Raises:
        ValueError: a number below 1, protected tokens, iterative top-k.
    """
    _check(window=window, window_k=window_k, windows_at_once=windows_at_once)
    check_two_steps(pooling.operator, pooling.protected)
    windows = Windows.cut(input_ids, attention_mask, window)
    parts = [pooling(_encode(encoder, ids, mask), mask, k=window_k) for ids, mask in windows.split(windows_at_once)]
    vectors, mask = (torch.cat(tensors) for tensors in zip(*(part[:2] for part in parts), strict=True))
    weights, slots = (torch.cat([getattr(part.choice, name) for part in parts]) for name in ("weights", "slots"))

    # The slots of a document's windows, side by side, are the candidates of the second step.
    row = windows.row.unsqueeze(-1)
    candidate = windows.number.unsqueeze(-1) * window_k + torch.arange(window_k, device=row.device)  # [W, window_k]
    shape = (len(input_ids), int(windows.number.max() + 1) * window_k)
    vectors = vectors.new_zeros(*shape, vectors.shape[-1]).index_put((row, candidate), vectors)
    k = pooling.k if isinstance(pooling.k, int) else math.ceil(pooling.k * input_ids.shape[1])
    pooled = pooling(vectors, mask.new_zeros(shape).index_put((row, candidate), mask), k=k)

    # What each token's slot in its window became.
    slot, weight = slots[windows.index, windows.place], weights[windows.index, windows.place]  # [T]
    its_row, its_candidate = windows.row[windows.index], candidate[windows.index, slot.clamp(min=0)]
    real = (attention_mask != 0).nonzero(as_tuple=True)
    weight = weight * pooled.choice.weights[its_row, its_candidate]
    slot = pooled.choice.slots[its_row, its_candidate].masked_fill(slot < 0, -1)
    choice = pooled.choice._replace(
        weights=weight.new_zeros(input_ids.shape).index_put(real, weight),
        slots=torch.full_like(input_ids, -1).index_put(real, slot),
    )
    choice = choice._replace(positions=_heaviest(choice))
    if pooling.keep_order:  # by the tokens that now lead, not by the candidates that did
        choice = choice.in_order()
    return PooledTokens(choice.values, choice.mask.to(attention_mask.dtype), choice.positions, choice)


def _encode(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """[B, L, d]"""
    options = {}
    if getattr(getattr(encoder, "config", None), "model_type", None) in ("led", "longformer"):
        real = attention_mask != 0  # their first token looks at all others, and all look at it
        options["global_attention_mask"] = (real & (real.cumsum(-1) == 1)).long()
    return encoder(input_ids=input_ids, attention_mask=attention_mask, **options).last_hidden_state


def positions_of(config: PreTrainedConfig) -> int | None:
    """How many tokens an encoder can tell apart, None if without limit."""
    positions = getattr(config, "max_encoder_position_embeddings", None)  # LED
    positions = getattr(config, "max_position_embeddings", None) if positions is None else positions
    if positions is None or positions < 1:
        return None
    # RoBERTa's family counts positions from pad_token_id + 1.
    offset = config.pad_token_id + 1 if config.model_type in ROBERTA_LIKE else 0
    return positions - offset


ROBERTA_LIKE = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm", "longformer",
                "data2vec-text", "xmod", "ibert", "mra", "esm"}  # fmt: skip


def check_window(window: int | None, config: PreTrainedConfig) -> None:
    """Raise ValueError for a window of more tokens than the encoder has positions."""
    positions = positions_of(config)
    if window is not None and positions is not None and window > positions:
        raise ValueError(f"expected a window of at most {positions} tokens, as the encoder has; got {window}")


def _heaviest(choice: TopK) -> Tensor:
    """[B, k] index of the token with the largest weight in each slot, the first of equals; 0 for an empty slot."""
    weights, n = choice.weights.detach(), choice.weights.shape[-1]
    slots = choice.slots.clamp(min=0)
    largest = weights.new_zeros(choice.mask.shape).scatter_reduce(1, slots, weights, "amax")
    leads = (weights == largest.gather(1, slots)) & (choice.slots >= 0)
    token = torch.arange(n, device=slots.device).expand_as(slots).masked_fill(~leads, n)
    first = torch.full_like(choice.positions, n).scatter_reduce(1, slots, token, "amin")
    return first.masked_fill(~choice.mask, 0)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
