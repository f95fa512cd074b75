"""What a layer above a pooling remembers: keys and values of the vectors that came through, and where they stand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from shtopk.integrations.decoders.layout import indices_of

KNOWN = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)


class SlotLayer(DynamicLayer):
    """A layer of a cache that holds slots of a prompt, and all that follows.

    Attributes:
        places: [B, m] the column in which each vector stands, -1 for none.
        filled: whether there is a vector at every place.
        seen: how many columns have been read, pooled or not.
        window: how many columns the layer looks back; None: all.
    """

    def __init__(self, places: Tensor, seen: int, window: int | None):
        super().__init__()
        self.places, self.seen, self.window = places, seen, window
        self.filled = bool((places >= 0).all())

    def follow(self, places: Tensor, real: bool) -> None:
        """Take note of the columns [B, t] of what comes next, before its keys and values do."""
        self.places = torch.cat([self.places, places], 1)
        self.seen += places.shape[1]
        self.filled = self.filled and real

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        if self.window is not None and self.filled:  # a vector looks back over fewer vectors than columns
            self.keys, self.values = keys[:, :, 1 - self.window :], values[:, :, 1 - self.window :]
            self.places = self.places[:, 1 - self.window :]
        return keys, values

    def keep(self, marked: Tensor) -> None:
        """Forget all vectors but those marked, [B, m] bool."""
        index, there = indices_of(marked)
        numbers = index[:, None, :, None]
        self.keys, self.values = (
            x.gather(2, numbers.expand(-1, x.shape[1], -1, x.shape[3])) for x in (self.keys, self.values)
        )
        self.places, self.filled = self.places.gather(1, index).masked_fill(~there, -1), bool(there.all())

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, self.seen  # of a mask that nobody uses: hooks make that of this layer

    def reset(self) -> None:
        super().reset()
        self.places, self.seen, self.filled = self.places[:, :0], 0, True

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.places = self.places.index_select(0, beam_idx.to(self.places.device))

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        if tokens_to_remove < 0:
            self.places, self.seen = self.places[:, :tokens_to_remove], self.seen + tokens_to_remove

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.places = self.places.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.places = self.places[indices]


def put_slots(cache: Cache, index: int, places: Tensor, seen: int, window: int | None) -> None:
    """Let a layer of an empty cache hold slots."""
    if cache.layer_class_to_replicate is not None:
        while len(cache.layers) <= index:
            cache.layers.append(cache.layer_class_to_replicate())
    kind = type(cache.layers[index])
    if kind not in KNOWN:
        raise ValueError(
            f"expected a cache that holds keys and values as they are, such as DynamicCache, got {kind.__name__}"
        )
    cache.layers[index] = SlotLayer(places, seen, window)


def slots_of(cache: Cache | None, index: int) -> SlotLayer | None:
    """A layer of a cache that holds slots; None if it does not."""
    layer = cache.layers[index] if cache is not None and index < len(cache.layers) else None
    return layer if isinstance(layer, SlotLayer) else None
