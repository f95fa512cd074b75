"""Read a prompt piece after piece, in less memory than the whole of it would take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from shtopk.integrations.decoders.cache import SlotLayer, keep, put_slots
from shtopk.integrations.decoders.families import window_of, with_cache
from shtopk.integrations.decoders.installation import pooled_stack
from shtopk.integrations.decoders.layout import Layout, indices_of
from shtopk.integrations.decoders.passing import Pass
from shtopk.integrations.decoders.places import Places
from shtopk.integrations.decoders.regions import default_regions, given_regions
from shtopk.integrations.decoders.state import REQUEST, asking
from shtopk.pooling import TopKPooling

SINKS = 4  # tokens at the start that a window keeps, as attention goes there when it has nothing to look at
Parts = list[tuple[Tensor, Layout]]


@torch.no_grad()
def read_prompt(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    piece: int = 4096,
    k: int | None = None,
    compress_mask: Tensor | None = None,
    window: int | None = None,
) -> DynamicCache:
    """Read a prompt in pieces, and return the cache with which `generate` goes on after it.

    The layers below the first pooling read piece after piece. Each piece is pooled to k vectors, and only these are
    kept. After the last piece all of them are pooled to k, and the layers above run once, over these and what is kept
    whole. A prompt of one piece is pooled once, as in `generate`. With a hard choice, pieces change nothing.

    The layers below remember all they have read, unless a `window` is given. Then a piece sees the first 4 tokens and
    the last `window` tokens before it, and memory does not grow with the prompt.

    The last token of the prompt is left to `generate`, which predicts from it.

    Args:
        model: a causal language model that `pool_decoder` was called on.
        input_ids: [B, n] prompts, n >= 1.
        attention_mask: [B, n] nonzero for a token; padding stands on the left. None: all are tokens.
        piece: >= 1 tokens that are read at once. Pieces are counted from the end; the first one may be shorter.
        k: as in `generate`, for this prompt.
        compress_mask: [B, n] as in `generate`, what of the prompts is pooled.
        window: >= 1 tokens that the layers below remember of what came before a piece, beside the first 4; None: all.

    Returns:
        A cache of n - 1 tokens. Pass it to `generate` with the same input_ids and attention_mask, or with the last
        token as input_ids and the whole attention_mask.

    Raises:
        ValueError: a model that is not pooled, or not now, a k that is a share, or another impossible argument.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from shtopk.integrations.decoder import pool_decoder
        >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2)
        >>> lm = pool_decoder(LlamaForCausalLM(config).eval(), {2: 8})
        >>> prompt = torch.arange(100, 1100).unsqueeze(0)
        >>> cache = read_prompt(lm, prompt, piece=100, window=100)
        >>> [layer.keys.shape[2] for layer in cache.layers]
        [104, 104, 8, 8]
        >>> lm.generate(prompt, past_key_values=cache, max_new_tokens=2, pad_token_id=0).shape
        torch.Size([1, 1002])
    """
    stack = pooled_stack(model)
    if any(one is stack.prompt_pooling for one in REQUEST.get().unpooled):
        raise ValueError("expected a model that pools, got one inside `with unpooled(model)`; call the model itself")
    real = _checked(input_ids, attention_mask, piece=piece, window=window)
    first, pooling = min((int(index), pooling) for index, pooling in stack.prompt_pooling.items())
    _check_k(pooling, k)
    keep_last = stack.prompt_pooling.keep_last
    regions = default_regions(real, keep_last) if compress_mask is None else given_regions(compress_mask, real)
    cache, above = DynamicCache(config=stack.config), DynamicCache(config=stack.config)
    n = input_ids.shape[1] - 1
    if n == 0:
        return cache
    prompt = Layout.of_prompt(real[:, :n], regions[:, :n])
    positions = (real.cumsum(-1) - 1).clamp(min=0)[:, :n]
    below = [] if window is None else _with_columns(cache, prompt, [window_of(stack.config, i) for i in range(first)])
    sinks = real & (real.cumsum(-1) <= SINKS)
    parts: Parts = []
    for end in range((n - 1) % piece + 1, n + 1, piece):
        start = max(0, end - piece)
        mask = None if attention_mask is None else attention_mask[:, :end]
        with asking(of=stack, k=k, begin=partial(ReadPiece, prompt.between(start, end), parts)):
            stack(input_ids[:, start:end], attention_mask=mask, position_ids=positions[:, start:end],
                  use_cache=True, **with_cache(stack, cache))  # fmt: skip
        if window is not None:
            for layers in below:
                keep(layers, partial(_in_window, start=end - window, sinks=sinks))
    vectors, layout = _side_by_side(parts)
    positions = positions.gather(1, layout.places.clamp(min=0))
    with asking(of=stack, k=k, begin=partial(ReadSlots, vectors, layout, n)):
        stack(inputs_embeds=vectors, position_ids=positions, use_cache=True, **with_cache(stack, above))
    cache.layers[first:] = above.layers[first:]
    return cache


class ReadPiece(Pass):
    """Reads a piece: the layers below do. What comes to the first layer above is pooled and put aside, and one vector
    alone goes on, without a cache.
    """

    def __init__(self, layout: Layout, parts: Parts, poolings: Mapping[str, TopKPooling], *rest: Any):
        super().__init__({}, *rest)
        self.piece, self.start, self.parts = layout, layout, parts
        self.first, pooling = next((int(index), pooling) for index, pooling in poolings.items())
        if bool(layout.regions.any()):
            self.due = [(self.first, pooling)]

    def begin(self, tokens: Tensor, given: Mapping[str, Any], window: int | None) -> None:
        self.n = tokens.shape[1]
        self.real = None if bool(self.piece.real.all()) else self.piece.real

    def remembers(self, index: int) -> bool:
        return index < self.first

    def enter(self, index: int, vectors: Tensor) -> Tensor:
        if index != self.first:
            return vectors
        vectors = super().enter(index, vectors)
        self.parts.append((vectors, self.piece if self.layout is None else self.layout))
        self.stand(_one(self.piece))
        return vectors[:, :1]


class ReadSlots(Pass):
    """Reads what was put aside, as if it came from the layers below: these get one vector, without a cache."""

    def __init__(self, vectors: Tensor, layout: Layout, n: int, poolings: Mapping[str, TopKPooling], *rest: Any):
        super().__init__({}, *rest)
        self.vectors, self.slots, self.columns_read = vectors, layout, n
        every = [(int(index), pooling) for index, pooling in poolings.items()]
        self.first = every[0][0]
        if bool(layout.regions.any()):
            self.due = every

    def begin(self, tokens: Tensor, given: Mapping[str, Any], window: int | None) -> None:
        self.n = tokens.shape[1]

    @property
    def read(self) -> int:
        return self.columns_read

    def remembers(self, index: int) -> bool:
        return index >= self.first

    def enter(self, index: int, vectors: Tensor) -> Tensor:
        if index == 0:
            self.stand(_one(self.slots))
            vectors = vectors[:, :1]
        if index == self.first:
            self.stand(self.slots)
            vectors = self.vectors
        return super().enter(index, vectors)

    def tokens(self, layout: Layout) -> Tensor:
        every = self.slots.places.masked_fill(~self.slots.real, self.read)
        return torch.searchsorted(every, layout.places.clamp(min=0)).masked_fill(~layout.real, -1)


def _with_columns(cache: DynamicCache, prompt: Layout, windows: list[int | None]) -> list[list[SlotLayer]]:
    """Let the lowest layers of an empty cache know in which columns their vectors stand; those of the same window
    share that.

    Args:
        cache: the cache.
        prompt: what will be read.
        windows: of the layers.

    Returns:
        The layers, by window.
    """
    shared = {window: Places(prompt.places[:, :0], 0) for window in windows}
    for index, window in enumerate(windows):
        put_slots(cache, index, shared[window], windows.index(window) == index, window)
    return [[cache.layers[i] for i, its in enumerate(windows) if its == window] for window in shared]


def _one(layout: Layout) -> Layout:
    """The layout of one vector in the first column."""
    zeros = torch.zeros_like(layout.places[:, :1])
    return Layout(zeros, zeros, zeros)


def _side_by_side(parts: Parts) -> tuple[Tensor, Layout]:
    """What was put aside of all pieces, without gaps between them."""
    layout = Layout(*(torch.cat(each, 1) for each in zip(*(layout for _, layout in parts), strict=True)))
    index, there = indices_of(layout.real)
    vectors = torch.cat([vectors for vectors, _ in parts], 1)
    vectors = vectors.gather(1, index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))
    return vectors * there.unsqueeze(-1), layout.take(index, there)


def _in_window(columns: Tensor, start: int, sinks: Tensor) -> Tensor:
    """[B, m] bool, True for the vectors of columns [B, m] from one on, and of those marked as sinks [B, n]."""
    return (columns >= 0) & ((columns >= start) | sinks.gather(1, columns.clamp(min=0)))


def _checked(input_ids: Tensor, attention_mask: Tensor | None, **counts: int | None) -> Tensor:
    """[B, n] bool, True for a token."""
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"expected {name} to be a number of tokens >= 1, got {count!r}")
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(f"expected input_ids [B, n] of prompts, got {list(input_ids.shape)}")
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        expected, got = list(input_ids.shape), list(attention_mask.shape)
        raise ValueError(f"expected an attention_mask [B, n] of {expected} as input_ids, got {got}")
    if not bool(attention_mask[:, -1].all()):
        raise ValueError("expected padding on the left, got a row that ends in padding; set padding_side")
    return attention_mask != 0


def _check_k(pooling: TopKPooling, k: int | None) -> None:
    k_of_piece = pooling.current_k if k is None else k
    pooling.options.check(k_of_piece)
    if isinstance(k_of_piece, float):
        raise ValueError(f"expected k to be a number of vectors to read in pieces, got the share {k_of_piece}; pass k")
