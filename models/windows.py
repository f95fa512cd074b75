"""Documents of any length, read in windows by an encoder that has few positions: nothing is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from shtopk import Assignment, TopK, TopKPooling
from shtopk.integrations.reading import WHOLE, Reading

from .configuration_topk_pooling import PooledBackboneConfig, check_two_steps
from .inputs import Inputs, checked_inputs, gather, padding_last

Layers = dict[str, tuple[Tensor, ...]]  # hidden_states and attentions: one tensor of each layer
WINDOWS_AT_ONCE = PooledBackboneConfig.windows_at_once


def pool_document(
    encoder: nn.Module, pooling: TopKPooling, inputs: Inputs, config: PooledBackboneConfig, **asked: bool | None
) -> tuple[TopK, Layers]:
    """Encode documents of any length, and pool each to k vectors.

    Args:
        encoder: of any kind; its inputs are checked.
        pooling: of its vectors.
        inputs: of the encoder, by name, see `checked_inputs`.
        config: says in which windows.
        asked: output_hidden_states and output_attentions, for documents of one window.

    Returns:
        The k vectors, and the encoder's hidden_states and attentions by name, as far as they were asked for.

    Raises:
        ValueError: they were asked for, and a document is longer than a window, or windows are pooled.
    """
    mask = inputs["attention_mask"]
    batch, length = mask.shape
    window = window_of(encoder, config) or length
    wanted = {name: True for name, one in asked.items() if one}
    if wanted and config.window_k is not None:
        raise ValueError("hidden states and attentions are not given where windows are pooled; unset window_k")
    if wanted and length > window:
        raise ValueError(
            f"hidden states and attentions are given for documents of at most {window} tokens (one window), "
            f"got {length}; raise config.window or leave them out"
        )
    # Processes that hold a share of each layer (FSDP2) must call it equally often, whatever their documents.
    sharded = any(isinstance(module, FSDPModule) for module in encoder.modules())
    at_once = batch * length if sharded else config.windows_at_once
    if config.window_k is not None or (config.k_by_layer is not None and not wanted):
        return _pool_in_windows(encoder, pooling, inputs, window, config.window_k, at_once), {}
    if length > window:
        return pooling(_encode_in_windows(encoder, inputs, window, at_once), mask), {}
    order = padding_last(mask)  # as in a window that was cut: a document's positions do not depend on its batch
    packed = gather(inputs, order)
    encoded = _encode(encoder, packed, **wanted)
    pooled = pool_encoded(pooling, encoded, packed["attention_mask"])
    pooled = TopK(pooled.values, pooled.scores, pooled.assignment.with_tokens_at(order), pooled.attention_mask)
    return pooled, _in_place(encoded, order, _is_local(encoder)) if wanted else {}


def _in_place(encoded: ModelOutput, order: Tensor, local: bool) -> Layers:
    """Hidden states [B, L, d] and attentions [B, h, L, L] of tokens that were moved, at their old places.

    Those above a pooling between layers stay as they are: they are of slots. In attentions that are local the last
    dimension is of neighbours.
    """
    come_from, length = order.argsort(-1), order.shape[1]

    def moved(x: Tensor, dim: int) -> Tensor:
        if x.shape[dim] != length:
            return x
        shape = [len(x), *[1] * (x.dim() - 1)]
        shape[dim] = length
        return x.gather(dim, come_from.view(shape).expand_as(x))

    found: Layers = {}
    if (states := encoded.get("hidden_states")) is not None:
        found["hidden_states"] = tuple(moved(x, 1) for x in states)
    if (attentions := encoded.get("attentions")) is not None:
        attentions = tuple(moved(x, 2) for x in attentions)
        found["attentions"] = attentions if local else tuple(moved(x, 3) for x in attentions)
    return found


class Windows(NamedTuple):
    """A batch of documents, cut into W windows of at most s tokens.

    Padding is removed first. Then a row of l > window real tokens is cut into ceil(l / window) windows of nearly equal
    size, side by side. So its result does not depend on the rest of its batch.
    """

    inputs: Inputs  # [W, s] or [W, s, d] each
    row: Tensor  # [W] the row of the document of each window
    number: Tensor  # [W] how many windows of the same document stand before
    window: Tensor  # [T] the window of each real token of the batch, row by row
    place: Tensor  # [T] the place of each real token in its window

    @classmethod
    def cut(cls, inputs: Inputs, window: int) -> Windows:
        """Cut inputs of documents [B, L] into windows; padding may stand anywhere, window >= 1."""
        real = inputs["attention_mask"] != 0
        if torch.onnx.is_in_onnx_export():
            raise ValueError(
                f"expected documents of at most {window} tokens (one window), got {real.shape[1]}; ONNX has no number "
                "of windows that depends on the document; export with fewer tokens, or raise window"
            )
        length = real.sum(-1, keepdim=True)  # [B, 1]
        windows = -(-length // window)  # [B, 1] of the row; none for an empty row, whose attention would be undefined
        size = (-(-length // windows.clamp(min=1))).clamp(min=1)  # [B, 1] tokens per window
        rank = real.cumsum(-1) - 1  # [B, L] how many real tokens stand before
        first = windows.cumsum(0) - windows  # [B, 1] number of the row's first window
        index = (first + rank // size)[real]
        place = (rank % size)[real]

        # If all rows are empty there is still one window, whose vectors are not used: few encoders accept none.
        shape = (max(1, int(windows.sum())), int(size.max()))
        row = torch.arange(len(real), device=real.device).repeat_interleave(windows.squeeze(-1))
        row = row if len(row) else row.new_zeros(1)
        return cls(
            inputs={
                name: x.new_zeros(*shape, *x.shape[2:]).index_put((index, place), x[real])
                for name, x in inputs.items()
            },
            row=row,
            number=torch.arange(len(row), device=row.device) - first.squeeze(-1)[row],
            window=index,
            place=place,
        )


def split(inputs: Inputs, at_once: int) -> Iterator[Inputs]:
    """Yield inputs of at most at_once windows each."""
    for parts in zip(*(x.split(at_once) for x in inputs.values()), strict=True):
        yield dict(zip(inputs, parts, strict=True))


def encode_in_windows(
    encoder: Callable[..., Any],
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    window: int,
    windows_at_once: int = WINDOWS_AT_ONCE,
    **others: Tensor | None,
) -> Tensor:
    """Encode documents that may be longer than the encoder has positions.

    If L <= window, this is one call of the encoder. Longer documents are cut into windows side by side; the vectors
    are then zero at padding.

    Args:
        encoder: called as encoder(input_ids=..., attention_mask=...); its output has a last_hidden_state.
        input_ids: [B, L] the documents.
        attention_mask: [B, L] nonzero for real tokens; padding may stand anywhere. None: all are real.
        window: tokens that the encoder sees at once, >= 1.
        windows_at_once: windows per call of the encoder, >= 1; bounds the memory.
        others: further inputs of the encoder by name, cut likewise: token_type_ids, position_ids and
            global_attention_mask [B, L], inputs_embeds [B, L, d] in place of input_ids.

    Returns:
        Tensor: [B, L, d] token vectors.

    Raises:
        ValueError: a window or a number of windows below 1, or an input that the encoder does not take.
    """
    _check(window=window, windows_at_once=windows_at_once)
    inputs = checked_inputs(encoder, input_ids, attention_mask, others)
    if inputs["attention_mask"].shape[1] <= window:
        return _encode(encoder, inputs).last_hidden_state
    return _encode_in_windows(encoder, inputs, window, windows_at_once)


def _encode_in_windows(encoder: Callable[..., Any], inputs: Inputs, window: int, at_once: int) -> Tensor:
    windows = Windows.cut(inputs, window)
    vectors = torch.cat([_encode(encoder, part).last_hidden_state for part in split(windows.inputs, at_once)])
    mask = inputs["attention_mask"]
    out = vectors.new_zeros(*mask.shape, vectors.shape[-1])
    return out.index_put((mask != 0).nonzero(as_tuple=True), vectors[windows.window, windows.place])


def pool_in_windows(
    encoder: Callable[..., Any],
    pooling: TopKPooling,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    window: int,
    window_k: int | None,
    windows_at_once: int = WINDOWS_AT_ONCE,
    **others: Tensor | None,
) -> TopK:
    """Pool documents in two steps: each window to window_k vectors, then the vectors of a document to k.

    Token vectors need not be kept, because the second step sees only window_k vectors of each window. A document of
    one window goes through both steps, too. So its result does not depend on the rest of its batch.

    Args:
        encoder: as for `encode_in_windows`.
        pooling: for both steps, without protected tokens.
        input_ids: [B, L] the documents.
        attention_mask: as for `encode_in_windows`.
        window: tokens that the encoder sees at once, >= 1.
        window_k: vectors to keep of each window, >= 1; None: all vectors of an encoder that pools between its layers.
        windows_at_once: windows per call of the encoder, >= 1; bounds the memory.
        others: as for `encode_in_windows`.

    Returns:
        TopK: as if all L tokens had been pooled once. A token's weight is the product of its weights in both steps.

    Raises:
        ValueError: a number below 1, protected tokens, or an input that the encoder does not take.
    """
    _check(window=window, windows_at_once=windows_at_once, window_k=1 if window_k is None else window_k)
    check_two_steps(pooling.options.protected)
    inputs = checked_inputs(encoder, input_ids, attention_mask, others)
    return _pool_in_windows(encoder, pooling, inputs, window, window_k, windows_at_once)


def _pool_in_windows(
    encoder: Callable[..., Any], pooling: TopKPooling, inputs: Inputs, window: int, window_k: int | None, at_once: int
) -> TopK:
    mask = inputs["attention_mask"]
    if mask.shape[1] <= window:  # no shape here depends on data, so the host never waits for a GPU
        order = padding_last(mask)  # as in a window that was cut
        kept, first = _pool_each(encoder, pooling, split(gather(inputs, order), at_once), window_k)
        first = first.with_tokens_at(order)
    else:
        windows = Windows.cut(inputs, window)
        kept, first = _pool_each(encoder, pooling, split(windows.inputs, at_once), window_k)
        kept, first = _side_by_side(kept, first, windows, mask)
    second = pooling(kept, first.mask.to(mask.dtype), counted=mask)
    return _both(first, second, pooling)


def _pool_each(
    encoder: Callable[..., Any], pooling: TopKPooling, parts: Iterable[Inputs], window_k: int | None
) -> tuple[Tensor, Assignment]:
    """The first step for W windows, some at once: vectors [W, window_k, d], and their assignment."""
    found = []
    for part in parts:
        encoded = _encode(encoder, part)
        if window_k is None:
            found.append((encoded.last_hidden_state, encoded.assignment))
        else:
            pooled = pool_encoded(pooling, encoded, part["attention_mask"], window_k)
            found.append((pooled.hidden_states, pooled.assignment))
    vectors, assignments = zip(*found, strict=True)
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


def _encode(encoder: Callable[..., Any], inputs: Inputs, **wanted: bool) -> Any:
    if _is_local(encoder) and "global_attention_mask" not in inputs:
        real = inputs["attention_mask"] != 0  # global attention for their first token
        inputs = inputs | {"global_attention_mask": (real & (real.cumsum(-1) == 1)).long()}
    return encoder(**inputs, **wanted)


def _is_local(encoder: Any) -> bool:
    """Whether tokens attend to their neighbours, and to those with global attention."""
    return getattr(getattr(encoder, "config", None), "model_type", None) in ("led", "longformer")


def window_of(encoder: Any, config: PooledBackboneConfig) -> int | None:
    """How many tokens an encoder is to see at once; None: the whole document."""
    # T5's n_positions is no limit, but what it was trained on; all of a long document at once would not fit.
    return config.window or positions_of(encoder.config) or getattr(encoder.config, "n_positions", None)


def reading_of(model: Any) -> Reading:
    """How a model reads documents: what it was taught to see before each, and in which windows.

    A model that is not from this package has no windows; documents are cut for it.
    """
    config = model.config
    if not isinstance(config, PooledBackboneConfig):
        return WHOLE
    encoder = model.encoder
    types = getattr(encoder.config, "type_vocab_size", None)  # XLNet has types without a number
    return Reading(config.source_prefix, window_of(encoder, config), None if types is None else types > 1)


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
                "data2vec-text", "xmod", "ibert", "mra", "esm", "luke", "lilt", "markuplm", "layoutlmv3", "prophetnet"
                }  # fmt: skip


def check_window(window: int | None, config: PreTrainedConfig) -> None:
    """Raise ValueError for a window of more tokens than the encoder has positions."""
    positions = positions_of(config)
    if window is not None and positions is not None and window > positions:
        raise ValueError(f"expected a window of at most {positions} tokens, as the encoder has; got {window}")


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
