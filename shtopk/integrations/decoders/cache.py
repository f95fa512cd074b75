"""What a layer above a pooling remembers: keys and values of the vectors that came through, and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from shtopk.integrations.decoders.layout import indices_of
from shtopk.integrations.decoders.places import FixedPlaces, Places

KNOWN = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)


class HoldsSlots(CacheLayerMixin):
    """A layer of a cache that holds slots of a prompt, and all that follows.

    Attributes:
        shared: where they stand, as the layers up to the next pooling know.
        leads: whether this layer is the one of them that lets the places follow when rows are taken.
        window: how many columns the layer looks back; None: all.
        before: the empty layer that stood in its place, and does again after a reset.
        empty: whether it was reset.
    """

    shared: Places
    leads: bool
    window: int | None
    before: CacheLayerMixin
    empty: bool

    def hold(self, places: Places, leads: bool, window: int | None, before: CacheLayerMixin) -> None:
        self.shared, self.leads, self.window, self.before, self.empty = places, leads, window, before, False
        self.is_sliding = before.is_sliding  # transformers sizes the masks below by the first layer that slides

    def columns(self, n: int) -> Tensor:
        """[B, m] where the vectors stand that the next n tokens see, these included, once the places know of them."""
        raise NotImplementedError

    @property
    def places(self) -> Tensor:
        """[B, m] the columns in which the vectors of this layer stand, -1 for none."""
        return self.columns(0)

    def get_seq_length(self) -> Any:
        return self.shared.seen if self.is_initialized and not self.empty else 0

    def reset(self) -> None:
        super().reset()
        self.empty = True

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        if self.leads:
            self.shared.take_rows(beam_idx)


class SlotLayer(HoldsSlots, DynamicLayer):
    """One that grows. With a window it keeps no more vectors than a layer without slots would."""

    def __init__(self, places: Places, leads: bool, window: int | None, before: CacheLayerMixin):
        super().__init__()
        self.hold(places, leads, window, before)
        self.trimmed = False

    def columns(self, n: int) -> Tensor:
        held = self.keys.shape[-2] if self.is_initialized and self.keys is not None else 0
        return self.shared.columns[:, self.shared.columns.shape[1] - held - n :]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        if self.window is not None and self.shared.filled:  # a vector looks back over fewer vectors than columns
            self.keys, self.values = keys[:, :, 1 - self.window :], values[:, :, 1 - self.window :]
            self.trimmed = self.trimmed or self.keys.shape[-2] < keys.shape[-2]
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Those of a mask that nobody uses, so as small as can be: hooks make the layer's own."""
        return self.before.get_mask_sizes(query_length) if self.empty else (query_length, int(self.shared.seen))

    def crop(self, tokens_to_remove: int) -> None:
        if self.trimmed and tokens_to_remove < 0:
            raise ValueError(
                "expected a cache without a window to drop tokens from, got one whose window has moved on"
            )
        if self.leads and self.shared.seen + tokens_to_remove < self.shared.prompt:
            raise ValueError(
                f"expected to drop tokens that followed a pooled prompt of {self.shared.prompt}, got "
                f"{-tokens_to_remove} of {self.shared.seen} to drop; read the prompt again"
            )
        super().crop(tokens_to_remove)
        if self.leads and tokens_to_remove < 0:
            self.shared.forget(-tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.leads:
            self.shared.repeat_rows(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.leads:
            self.shared.take_rows(torch.as_tensor(indices))


class FixedSlotLayer(HoldsSlots, StaticLayer):
    """One of a fixed size: the slots, what was kept, and room for as many tokens as were to follow."""

    def __init__(self, places: FixedPlaces, leads: bool, window: int | None, before: CacheLayerMixin):
        super().__init__(max_cache_len=places.columns.shape[1])
        self.hold(places, leads, window, before)
        self.most = places.most

    def columns(self, n: int) -> Tensor:
        return self.shared.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.before.get_mask_sizes(query_length) if self.empty else (self.most, 0)

    def get_max_length(self) -> int:
        return self.most


def places_in(cache: Cache, columns: Tensor, seen: int) -> Places:
    """The places of vectors [B, m], for the layers of this cache that will hold them: of a fixed size if the cache's
    own is known.
    """
    most = most_columns(cache)
    return Places(columns, seen) if most is None else FixedPlaces(columns, seen, most)


def most_columns(cache: Cache) -> int | None:
    """How many columns a cache has room for; None: it grows, or looks back a window in all layers."""
    layers = [layer.before if isinstance(layer, HoldsSlots) else layer for layer in cache.layers]
    sizes = [layer.max_cache_len for layer in layers if type(layer) is StaticLayer]
    return max(sizes, default=None)


def put_slots(cache: Cache, index: int, places: Places, leads: bool, window: int | None) -> None:
    """Let a layer of an empty cache hold slots."""
    if cache.layer_class_to_replicate is not None:
        while len(cache.layers) <= index:
            cache.layers.append(cache.layer_class_to_replicate())
    before = cache.layers[index]
    if type(before) not in KNOWN:
        raise ValueError(
            "expected a cache that holds keys and values as they are, such as DynamicCache, got one of "
            f"{type(before).__name__}"
        )
    if isinstance(places, FixedPlaces):
        cache.layers[index] = FixedSlotLayer(places, leads, window, before)
    else:
        cache.layers[index] = SlotLayer(places, leads, window, before)


def slots_of(cache: Cache | None, index: int) -> SlotLayer | FixedSlotLayer | None:
    """A layer of a cache that holds slots; None if it does not."""
    layer = cache.layers[index] if cache is not None and index < len(cache.layers) else None
    return layer if isinstance(layer, (SlotLayer, FixedSlotLayer)) else None


def keep(layers: Sequence[SlotLayer], marked: Callable[[Tensor], Tensor]) -> None:
    """Let layers that share their places forget vectors.

    Args:
        layers: one or more.
        marked: from columns [B, m], -1 for none, to [B, m] bool, True for what they keep.
    """
    columns = layers[0].places
    index, there = indices_of(marked(columns))
    for layer in layers:
        numbers = index[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
        layer.keys, layer.values = layer.keys.gather(2, numbers), layer.values.gather(2, numbers)
    layers[0].shared.columns = columns.gather(1, index).masked_fill(~there, -1)
    layers[0].shared.filled = bool(there.all())


def own(cache: Cache) -> None:
    """Mark a cache that a pooled model filled, be it with slots or not."""
    vars(cache)["of_pooled"] = True


def is_own(cache: Cache) -> bool:
    """Whether it is marked."""
    return "of_pooled" in vars(cache)


def put_back(cache: Cache) -> None:
    """Let the layers of a cache that was reset be what they were before there were slots in them."""
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, HoldsSlots) and layer.empty:
            cache.layers[index] = layer.before
