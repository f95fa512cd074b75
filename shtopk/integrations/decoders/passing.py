"""One pass of a language model over a prompt, or over what follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shtopk.integrations.decoders.attention import as_argument, ended, visible
from shtopk.integrations.decoders.cache import SlotLayer, put_slots, slots_of
from shtopk.integrations.decoders.layout import Layout, pool, spread
from shtopk.integrations.decoders.regions import default_regions, given_regions, prompt_of
from shtopk.integrations.decoders.state import Request
from shtopk.integrations.layers.families import of_tokens
from shtopk.pooling import TopKPooling


class Pass:
    """One pass through the layers.

    Attributes:
        due: (layer, pooling) of the poolings that have not run yet, lowest layer first; none in a pass over what
            follows a prompt.
        layout: where the vectors stand now; None as long as they are those of the n tokens.
        n: tokens of this pass.
        seen: tokens that the cache holds from passes before.
        outer: the pass of another model, if this one runs inside it.
    """

    def __init__(self, poolings: dict[int, TopKPooling], keep_last: int, request: Request, outer: Pass | None):
        self.poolings, self.keep_last, self.request, self.outer = poolings, keep_last, request, outer
        self.due: list[tuple[int, TopKPooling]] = []
        self.layout: Layout | None = None
        self.n = self.seen = 0
        self.new: Tensor | None = None  # [B, n] bool, True for a token; None: all are
        self.masks: dict[Any, Any] = {}  # those of this height, by window

    def begin(self, n: int, seen: int, batch: int, mask: Any, device: torch.device) -> None:
        """Look at the arguments of the model.

        Args:
            n: tokens of this pass.
            seen: tokens in the cache.
            batch: rows.
            mask: [B, seen + n] nonzero for a token, or a mask of pairs [B, 1, n, ...]; None: all are tokens.
            device: of the tokens.
        """
        self.n, self.seen = n, seen
        self.new = None if mask is None else real_tokens(mask, n)
        if seen or n <= 1 or not self.poolings:
            return
        real = torch.ones(batch, n, dtype=torch.bool, device=device) if self.new is None else self.new
        request = self.request
        if request.k is not None:
            for pooling in self.poolings.values():
                pooling.options.check(request.k)
        if request.compress_mask is not None:
            given = request.compress_mask.repeat_interleave(max(1, batch // len(request.compress_mask)), 0)  # of beams
            regions = given_regions(given, real, request.labels)
        else:
            prompt = None if request.labels is None else prompt_of(request.labels, real)
            regions = default_regions(real, self.keep_last, prompt)
        if bool(regions.any()):
            self.start = Layout.of_prompt(real, regions)
            self.due = list(self.poolings.items())

    @property
    def read(self) -> int:
        """Columns that have been read when this pass ends."""
        return self.seen + self.n

    def enter(self, index: int, vectors: Tensor) -> Tensor:
        """What a layer gets in place of the vectors [B, m, d]: those pooled so far."""
        while self.due and self.due[0][0] <= index:
            pooling = self.due.pop(0)[1]
            layout = self.start if self.layout is None else self.layout
            if not self.needed(pooling, layout):
                continue
            vectors, self.layout = pool(pooling, vectors, layout, self.request.k)
            self.masks.clear()
        return vectors

    def remembers(self, index: int) -> bool:
        """Whether a layer writes into the cache."""
        return True

    def needed(self, pooling: TopKPooling, layout: Layout) -> bool:
        """Whether a region has more vectors than there are slots for it. A share always takes part."""
        k = pooling.current_k if self.request.k is None else self.request.k
        numbers = torch.arange(1, int(layout.regions.max()) + 1, device=layout.regions.device)
        most = (layout.regions.unsqueeze(1) == numbers[:, None]).sum(-1).max()
        return isinstance(k, float) or int(most) > pooling.slots_for(int(most), k)

    def positions(self, given: Any, layer: Any) -> Any:
        """Positions [B or 1, n, ...] of all tokens, or a tuple of such, turned into those of the vectors."""
        return given if self.layout is None else of_tokens(given, self.tokens(self.layout).clamp(min=0), layer)

    def tokens(self, layout: Layout) -> Tensor:
        """[B, m] the tokens of this pass that vectors come from, 0..n-1; -1 for none."""
        return layout.places

    def mask(self, index: int, given: Any, cache: Any, window: int | None, kind: str, dtype: torch.dtype) -> Any:
        """The attention mask of a layer, in place of the model's own."""
        if self.layout is not None:
            if cache is not None:
                put_slots(cache, index, self.layout.places, self.read, window)
            return self.of_prompt(self.layout, window, kind, dtype)
        slots = slots_of(cache, index)
        if slots is None:
            return given
        slots.follow(self.columns(slots), self.new is None or bool(self.new.all()))
        return self.of_following(slots, window, kind, dtype)

    def columns(self, slots: SlotLayer) -> Tensor:
        """[B, n] where the tokens of this pass stand."""
        batch, device = len(slots.places), slots.places.device
        columns = torch.arange(slots.seen, slots.seen + self.n, device=device).expand(batch, -1)
        return columns if self.new is None else columns.masked_fill(~self.new.to(device), -1)

    def of_prompt(self, layout: Layout, window: int | None, kind: str, dtype: torch.dtype) -> Any:
        if window not in self.masks:
            if "flash" in kind:
                self.masks[window] = layout.real
            else:
                seen = visible(layout.places, layout.places, window) & ended(layout)
                self.masks[window] = as_argument(seen, dtype, kind)
        return self.masks[window]

    def of_following(self, slots: SlotLayer, window: int | None, kind: str, dtype: torch.dtype) -> Any:
        key = window, slots.places.shape[1]
        if key not in self.masks:
            if "flash" in kind:
                self.masks[key] = slots.places >= 0
            elif slots.filled and self.n == 1 and window is None:
                self.masks[key] = None
            else:
                seen = visible(slots.places[:, -self.n :], slots.places, window)
                self.masks[key] = as_argument(seen, dtype, kind)
        return self.masks[key]

    def leave(self, vectors: Tensor) -> Tensor:
        """What the model returns in place of the vectors of its last layer: one for each of the n tokens."""
        return vectors if self.layout is None else spread(vectors, self.tokens(self.layout), self.n)


def real_tokens(mask: Any, n: int) -> Tensor:
    """[B, n] bool of the last n tokens, from a mask of tokens or of pairs."""
    if isinstance(mask, dict):  # one for each kind of layers
        mask = mask.get("full_attention", next(iter(mask.values())))
    if not isinstance(mask, Tensor):
        raise ValueError(
            f"expected an attention mask that is a tensor, got {type(mask).__name__}; load the model with "
            "attn_implementation='sdpa' or 'eager'"
        )
    if mask.dim() == 2:
        return mask[:, -n:] != 0
    diagonal = mask[:, 0].diagonal(mask.shape[-1] - n, -2, -1)
    return diagonal >= 0 if mask.is_floating_point() else diagonal != 0
