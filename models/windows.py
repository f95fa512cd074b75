"""Documents of any length, read in windows by an encoder that has few positions: nothing is cut off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from shtopk import Assignment, TopK, TopKPooling

from .configuration_topk_pooling import PooledBackboneConfig, check_two_steps

WINDOWS_AT_ONCE = PooledBackboneConfig.windows_at_once


def pool_document(
    encoder: nn.Module,
    pooling: TopKPooling,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    config: PooledBackboneConfig,
) -> TopK:
    """Encode documents [B, L] of any length, and pool each to k vectors. attention_mask [B, L]; None: all real."""
    input_ids = checked(input_ids)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    # T5's n_positions is no limit, but what it was trained on; all of a long document at once would not fit.
    trained = getattr(encoder.config, "n_positions", None)
    window = config.window or positions_of(encoder.config) or trained or input_ids.shape[1]
    # Processes that hold a share of each layer (FSDP2) must call it equally often, whatever their documents.
    sharded = any(isinstance(module, FSDPModule) for module in encoder.modules())
    at_once = len(input_ids) * input_ids.shape[1] if sharded else config.windows_at_once
    if config.window_k is not None or config.k_by_layer is not None:
        return pool_in_windows(encoder, pooling, input_ids, attention_mask, window, config.window_k, at_once)
    tokens = encode_in_windows(encoder, input_ids, attention_mask, window, at_once)
    return pooling(tokens, attention_mask)


def checked(input_ids: Tensor | None) -> Tensor:
    """input_ids, checked.

    Raises:
        ValueError: they are None, or not [B, L] with L >= 1.
    """
    if input_ids is None:
        raise ValueError("expected input_ids [B, L], got None")
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(f"expected input_ids [B, L] of at least one token, got {list(input_ids.shape)}")
    return input_ids


class Windows(NamedTuple):
    """A batch of documents, cut into W windows of at most s tokens.

    Padding is removed first. Then a row of l > window real tokens is cut into ceil(l / window) windows of nearly equal
    size, side by side. So its result does not depend on the rest of its batch.
    """

    input_ids: Tensor  # [W, s]
    attention_mask: Tensor  # [W, s]
    row: Tensor  # [W] the row of the document of each window
    number: Tensor  # [W] how many windows of the same document stand before
    window: Tensor  # [T] the window of each real token of the batch, row by row
    place: Tensor  # [T] the place of each real token in its window

    @classmethod
    def cut(cls, input_ids: Tensor, attention_mask: Tensor, window: int) -> Windows:
        """Cut documents [B, L] into windows; padding may stand anywhere, window >= 1."""
        real = attention_mask != 0
        length = real.sum(-1, keepdim=True)  # [B, 1]
        windows = -(-length // window)  # [B, 1] of the row; none for an empty row, whose attention would be undefined
        size = (-(-length // windows.clamp(min=1))).clamp(min=1)  # [B, 1] tokens per window
        rank = real.cumsum(-1) - 1  # [B, L] how many real tokens stand before
        first = windows.cumsum(0) - windows  # [B, 1] number of the row's first window
        index = (first + rank // size)[real]
        place = (rank % size)[real]

        # If all rows are empty there is still one window, whose vectors are not used: few encoders accept none.
        shape = (max(1, int(windows.sum())), int(size.max()))
        row = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(windows.squeeze(-1))
        row = row if len(row) else row.new_zeros(1)
        return cls(
            input_ids=input_ids.new_zeros(shape).index_put((index, place), input_ids[real]),
            attention_mask=attention_mask.new_zeros(shape).index_put((index, place), attention_mask[real]),
            row=row,
            number=torch.arange(len(row), device=row.device) - first.squeeze(-1)[row],
            window=index,
            place=place,
        )

    def split(self, at_once: int):
        """Yield pairs of input_ids and attention_mask, of at most at_once windows each."""
        return zip(self.input_ids.split(at_once), self.attention_mask.split(at_once), strict=True)


def encode_in_windows(
    encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, window: int, windows_at_once: int = WINDOWS_AT_ONCE
) -> Tensor:
    """Encode documents that may be longer than the encoder has positions.

    If L <= window, this is one call of the encoder. Longer documents are cut into windows side by side; the vectors
    are then zero at padding.

    Args:
        encoder: called as encoder(input_ids=..., attention_mask=...); its output has a last_hidden_state.
        input_ids: [B, L] the documents.
        attention_mask: [B, L] nonzero for real tokens; padding may stand anywhere.
        window: tokens that the encoder sees at once, >= 1.
        windows_at_once: windows per call of the encoder, >= 1; bounds the memory.

    Returns:
        Tensor: [B, L, d] token vectors.

    Raises:
        ValueError: a window or a number of windows below 1.
    """
    _check(window=window, windows_at_once=windows_at_once)
    if input_ids.shape[1] <= window:
        return _encode(encoder, input_ids, attention_mask).last_hidden_state
    _refuse_in_onnx(input_ids.shape[1], window)
    windows = Windows.cut(input_ids, attention_mask, window)
    vectors = torch.cat([
        _encode(encoder, ids, mask).last_hidden_state for ids, mask in windows.split(windows_at_once)
    ])  # fmt: skip
    real = (attention_mask != 0).nonzero(as_tuple=True)
    out = vectors.new_zeros(*input_ids.shape, vectors.shape[-1])
    return out.index_put(real, vectors[windows.window, windows.place])


def pool_in_windows(
    encoder: nn.Module,
    pooling: TopKPooling,
    input_ids: Tensor,
    attention_mask: Tensor,
    window: int,
    window_k: int | None,
    windows_at_once: int = WINDOWS_AT_ONCE,
) -> TopK:
    """Pool documents in two steps: each window to window_k vectors, then the vectors of a document to k.

    Token vectors need not be kept, because the second step sees only window_k vectors of each window. A document of
    one window goes through both steps, too. So its result does not depend on the rest of its batch.

    Args:
        encoder: called as encoder(input_ids=..., attention_mask=...); its output has a last_hidden_state.
        pooling: for both steps, without protected tokens.
        input_ids: [B, L] the documents.
        attention_mask: [B, L] nonzero for real tokens; padding may stand anywhere.
        window: tokens that the encoder sees at once, >= 1.
        window_k: vectors to keep of each window, >= 1; None: all vectors of an encoder that pools between its layers.
        windows_at_once: windows per call of the encoder, >= 1; bounds the memory.

    Returns:
        TopK: as if all L tokens had been pooled once. A token's weight is the product of its weights in both steps.

    Raises:
        ValueError: a number below 1, or protected tokens.
    """
    _check(window=window, windows_at_once=windows_at_once, window_k=1 if window_k is None else window_k)
    check_two_steps(pooling.options.protected)
    if input_ids.shape[1] <= window:
        kept, first = _pool_whole(encoder, pooling, input_ids, attention_mask, window_k, windows_at_once)
    else:
        _refuse_in_onnx(input_ids.shape[1], window)
        windows = Windows.cut(input_ids, attention_mask, window)
        kept, first = _pool_each(encoder, pooling, windows.split(windows_at_once), window_k)
        kept, first = _side_by_side(kept, first, windows, attention_mask)
    second = pooling(kept, first.mask.to(attention_mask.dtype), counted=attention_mask)
    return _both(first, second, pooling)


def _pool_whole(
    encoder: nn.Module, pooling: TopKPooling, input_ids: Tensor, attention_mask: Tensor, window_k: int | None,
    at_once: int,
) -> tuple[Tensor, Assignment]:  # fmt: skip
    """The first step for documents [B, L] of one window each: vectors [B, window_k, d], and their assignment.

    No shape here depends on data, so the host never waits for a GPU.
    """
    order = (attention_mask == 0).int().argsort(dim=1, stable=True)  # padding last, as in a window that was cut
    parts = (x.gather(1, order).split(at_once) for x in (input_ids, attention_mask))
    vectors, assignment = _pool_each(encoder, pooling, zip(*parts, strict=True), window_k)
    return vectors, assignment.with_tokens_at(order)


def _pool_each(
    encoder: nn.Module, pooling: TopKPooling, windows: Iterable[tuple[Tensor, Tensor]], window_k: int | None
) -> tuple[Tensor, Assignment]:
    """The first step for W windows, some at once: vectors [W, window_k, d], and their assignment."""
    parts = []
    for ids, mask in windows:
        encoded = _encode(encoder, ids, mask)
        if window_k is None:
            parts.append((encoded.last_hidden_state, encoded.assignment))
        else:
            pooled = pool_encoded(pooling, encoded, mask, window_k)
            parts.append((pooled.hidden_states, pooled.assignment))
    vectors, assignments = zip(*parts, strict=True)
    return torch.cat(vectors), Assignment.cat(assignments)


def _side_by_side(
    vectors: Tensor, assignment: Assignment, windows: Windows, attention_mask: Tensor
) -> tuple[Tensor, Assignment]:
    """Put the slots of a document's windows side by side, as candidates of the second step."""
    of_window = vectors.shape[1]
    numbers = windows.number.unsqueeze(-1) * of_window + torch.arange(of_window, device=windows.row.device)
    (batch, n), candidates = attention_mask.shape, int(windows.number.max() + 1) * of_window
    real = (attention_mask != 0).nonzero()  # [T, 2]
    first = assignment.reassemble(
        (windows.window, windows.place), (real[:, 0], real[:, 1]), numbers, windows.row, (batch, n, candidates)
    )
    kept = vectors.new_zeros(batch, candidates, vectors.shape[-1])
    return kept.index_put((windows.row.unsqueeze(-1), numbers), vectors), first


def pool_encoded(
    pooling: TopKPooling, encoded: ModelOutput, attention_mask: Tensor | None, k: int | None = None
) -> TopK:
    """Pool an encoder's output for tokens under attention_mask [B, L] to k vectors (None: the pooling's k).

    An encoder that pools between its layers gives fewer than L vectors. The assignment is then that of both steps.
    """
    first: Assignment | None = getattr(encoded, "assignment", None)
    if first is None:
        return pooling(encoded.last_hidden_state, attention_mask, k=k)
    every = first.weights.new_ones(len(first.weights), first.weights.shape[-1])  # tokens, all real without a mask
    mask = first.mask if attention_mask is None else first.mask.to(attention_mask.dtype)
    counted = every if attention_mask is None else attention_mask
    return _both(first, pooling(encoded.last_hidden_state, mask, k=k, counted=counted), pooling)


def _both(first: Assignment, second: TopK, pooling: TopKPooling) -> TopK:
    """Two steps as one, with the slots in the order of tokens, not of candidates."""
    pooled = second.after(first)
    return pooled.in_order() if pooling.options.keep_order else pooled


def _encode(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> ModelOutput:
    options = {}
    if getattr(getattr(encoder, "config", None), "model_type", None) in ("led", "longformer"):
        real = attention_mask != 0  # global attention for their first token
        options["global_attention_mask"] = (real & (real.cumsum(-1) == 1)).long()
    return encoder(input_ids=input_ids, attention_mask=attention_mask, **options)


def positions_of(config: PreTrainedConfig) -> int | None:
    """How many positions an encoder has; None: there is no limit."""
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


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")


def _refuse_in_onnx(length: int, window: int) -> None:
    """Raise ValueError in an export to ONNX."""
    if torch.onnx.is_in_onnx_export():
        raise ValueError(
            f"expected documents of at most {window} tokens (one window), got {length}; ONNX has no number of windows "
            "that depends on the document; export with fewer tokens, or raise window"
        )
