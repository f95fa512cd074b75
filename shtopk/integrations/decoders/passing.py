"""One pass of a language model over a prompt, or over what follows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.assignment import Assignment
from shtopk.integrations.decoders.attention import check_kind, check_window, is_flash, of_following, of_prompt
from shtopk.integrations.decoders.cache import is_own, places_in, put_back, put_slots, slots_of
from shtopk.integrations.decoders.families import cache_in
from shtopk.integrations.decoders.layout import Layout, pool, spread
from shtopk.integrations.decoders.places import FixedPlaces, Places
from shtopk.integrations.decoders.prompt import check_prompt, mask_in, real_tokens
from shtopk.integrations.decoders.regions import default_regions, given_regions, prompt_of
from shtopk.integrations.decoders.state import Request
from shtopk.integrations.layers.between import device_of, with_gradients_of
from shtopk.integrations.layers.families import of_tokens
from shtopk.pooling import TopKPooling

OF_OTHERS = (
    "expected the cache of a prompt that a pooled model read, or none; with another, such as PEFT's prefix tuning "
    "makes, no prompt is pooled"
)


class Pass:
    """One pass through the layers.

    Attributes:
        poolings: of the model, by layer.
        keep_last: tokens at the end of a prompt that are kept.
        request: what the caller wants.
        kind: of the attention.
        of: the module that runs the layers, or that it is a replica of.
        outer: the pass of another model, if this one runs inside it.
        n: tokens of this pass.
        real: [B, n] bool, True for a token; None: all are.
        shown: [B, m] nonzero for the columns read so far that a later pass sees, if they followed; None: all.
        due: (layer, pooling) of the poolings that have not run yet, lowest layer first; none in a pass over what
            follows a prompt.
        layout: where the vectors stand now; None as long as nothing was pooled.
        kept: if somebody asks, the assignment of the tokens of a prompt to the vectors so far; else None.
        places: those that layers remember from this height on; None: no layer does yet.
        followed: (places, columns [B, n] of the tokens in them) of those that know of this pass.
    """

    def __init__(
        self,
        poolings: Mapping[str, Any],
        keep_last: int,
        request: Request,
        kind: str,
        of: nn.Module,
        outer: Pass | None,
    ):
        self.poolings, self.keep_last, self.request = poolings, keep_last, request
        self.kind, self.of, self.outer = kind, of, outer
        self.n = 0
        self.real: Tensor | None = None
        self.shown: Tensor | None = None
        self.due: list[tuple[int, TopKPooling]] = []
        self.start: Layout | None = None
        self.layout: Layout | None = None
        self.kept: Assignment | None = None
        self.places: Places | None = None
        self.followed: list[tuple[Places, Tensor]] = []
        self.masks: dict[Any, Any] = {}  # of this height, by window
        self.moved: list[tuple[Any, Any]] = []  # arguments of all tokens, and of the vectors of this height

    def begin(self, tokens: Tensor, given: Mapping[str, Any], window: int | None) -> None:
        """Look at the arguments of the model.

        Args:
            tokens: [B, n] or [B, n, d].
            given: all arguments by name.
            window: how many columns the model's layers look back; None: all.
        """
        self.n = tokens.shape[1]
        cache, mask = cache_in(given), mask_in(given)
        if cache is not None:
            put_back(cache)
            slots = next((slots_of(cache, i) for i in range(len(cache.layers)) if slots_of(cache, i)), None)
            if slots is not None:
                if mask is not None:
                    self.look_at(mask, slots.shared)
                self.refuse_to_pool("the cache of a prompt")
                return
        if not self.poolings:
            return
        if self.n > 1 and (cache is None or not int(cache.get_seq_length())):
            self.begin_prompt(tokens, given, window)
        else:
            self.refuse_to_pool("one token" if self.n == 1 else "the cache of a prompt")
            if self.n > 1 and not is_own(cache) and not torch.compiler.is_compiling():
                warnings.warn(OF_OTHERS, stacklevel=2)

    def look_at(self, mask: Tensor, places: Places) -> None:
        """Take note of what the mask of a later pass hides."""
        pairs, generating = mask.dim() == 4, self.request.generating
        if pairs and not generating:
            raise ValueError("expected an attention mask [B, m] after a prompt, got one of pairs of tokens")
        if generating and self.n == 1:  # nothing waits, and nothing new is hidden
            self.shown = mask if places.hides and not pairs else None
            return
        self.real = real_tokens(mask, places.seen, self.n)
        if not torch.compiler.is_compiling():
            plain = bool((self.real if pairs else mask[:, places.prompt :]).all())
            places.hides = not plain and not pairs
            if plain:
                self.real = None
                return
        self.shown = None if pairs else mask

    def refuse_to_pool(self, what: str) -> None:
        """Refuse a compress_mask where no prompt begins."""
        if self.request.compress_mask is not None and not self.request.generating:
            raise ValueError(f"expected a compress_mask with a prompt, got it with {what}; leave it out")

    @torch.compiler.disable  # how much comes through is not known before
    def begin_prompt(self, tokens: Tensor, given: Mapping[str, Any], window: int | None) -> None:
        """Find what is to be pooled."""
        batch, request, mask = len(tokens), self.request, mask_in(given)
        if mask is None:
            real = torch.ones(batch, self.n, dtype=torch.bool, device=tokens.device)
        else:
            real = real_tokens(mask, 0, self.n).to(tokens.device).expand(batch, -1)
        if request.generating and not bool(real.any(-1).all()):
            raise ValueError("expected at least one token in each prompt to generate, got a row of padding alone")
        if request.generating and not bool(real[:, -1].all()):
            raise ValueError(
                "expected padding on the left to generate, got a row that ends in padding; set padding_side='left'"
            )
        if request.learning and request.compress_mask is None and request.labels is None:
            raise ValueError(
                "expected labels or a compress_mask in training, which tell where the prompt ends, got neither; pass "
                "labels of -100 for the prompt"
            )
        if request.compress_mask is not None:
            marks: Any = request.compress_mask
            if isinstance(marks, Tensor) and request.generating and len(marks):  # a row for each beam
                marks = marks.repeat_interleave(max(1, batch // len(marks)), 0)
            regions = given_regions(marks, real, request.labels)
        else:
            prompt = None if request.labels is None else prompt_of(request.labels, real)
            regions = default_regions(real, self.keep_last, prompt)
        if request.record is not None:
            self.kept = Assignment.of_every_token(real, torch.float32)
        if bool(regions.any()):
            check_kind(self.kind)
            check_prompt(given, real, window)
            self.start = Layout.of_prompt(real, regions)
            self.due = [(int(index), pooling) for index, pooling in self.poolings.items()]

    def enter(self, index: int, vectors: Tensor) -> Tensor:
        """What a layer gets in place of the vectors [B, m, d]: those pooled so far."""
        while self.due and self.due[0][0] <= index:
            vectors = self.pool(self.due.pop(0)[1], vectors)
        return vectors

    @torch.compiler.disable
    def pool(self, pooling: TopKPooling, vectors: Tensor) -> Tensor:
        """Pool the vectors, if they are more than there are slots."""
        layout = self.start if self.layout is None else self.layout
        assert layout is not None
        if self.needed(pooling, layout):
            device = device_of(pooling, vectors)
            vectors, layout, flow = pool(pooling, vectors.to(device), layout.to(device), self.request.k)
            if self.kept is not None:
                assignment = self.kept.map(lambda x: x.to(device)).then(flow.assignment())
                self.kept = assignment._replace(positions=layout.places.clamp(min=0))  # as the layers above know them
            self.stand(layout)
        return vectors

    def stand(self, layout: Layout) -> None:
        """Take note of where the vectors stand from here on."""
        self.layout, self.places = layout, None
        self.masks.clear()
        self.moved.clear()

    def remembers(self, index: int) -> bool:
        """Whether a layer writes into the cache."""
        return True

    @property
    def read(self) -> int:
        """Columns of a prompt that have been read when this pass ends."""
        return self.n

    def tokens(self, layout: Layout) -> Tensor:
        """[B, m] the tokens of this pass that vectors come from, 0..n-1; -1 for none."""
        return layout.places

    def needed(self, pooling: TopKPooling, layout: Layout) -> bool:
        """Whether a region has more vectors than there are slots for it. A share always takes part."""
        k = pooling.current_k if self.request.k is None else self.request.k
        pooling.options.check(k)
        most = layout.largest()
        return isinstance(k, float) or most > pooling.slots_for(most, k)

    def positions(self, given: Any, layer: Any) -> Any:
        """Positions [B or 1, n, ...] of all tokens, or a tuple of such, turned into those of the vectors."""
        if self.layout is None:
            return given
        for before, after in self.moved:
            if before is given:
                return after
        after = of_tokens(given, self.tokens(self.layout).clamp(min=0), layer)
        self.moved.append((given, after))
        return after

    def mask(self, index: int, given: Any, cache: Any, window: int | None, dtype: torch.dtype) -> Any:
        """The attention mask of a layer, in place of the model's own."""
        if self.layout is not None:
            check_window(self.kind, window)
            return self.mask_of_prompt(self.layout, index, cache, window, dtype)
        slots = slots_of(cache, index)
        if slots is None:
            return given
        turn = self.turn_of(slots.shared)
        if (turn, window) not in self.masks:
            columns, filled = slots.columns(self.n), slots.shared.filled
            if self.shown is not None:
                columns, filled = slots.shared.shown(columns, self.shown), False
            queries = self.followed[turn][1]
            self.masks[turn, window] = of_following(queries, columns, filled, window, dtype, self.kind)
        return self.masks[turn, window]

    @torch.compiler.disable
    def mask_of_prompt(self, layout: Layout, index: int, cache: Any, window: int | None, dtype: torch.dtype) -> Any:
        if cache is not None:
            leads = self.places is None
            if self.places is None:
                self.places = places_in(cache, layout.places, self.read)
            if is_flash(self.kind) and isinstance(self.places, FixedPlaces):
                raise ValueError("expected a cache that grows under flash attention, got a StaticCache")
            put_slots(cache, index, self.places, leads, window)
        if window not in self.masks:
            size = layout.places.shape[1]
            if isinstance(self.places, FixedPlaces):
                size = self.places.columns.shape[1]
            self.masks[window] = of_prompt(layout, size, window, dtype, self.kind)
        return self.masks[window]

    def turn_of(self, places: Places) -> int:
        """The number of these places among those that know of this pass; they do from now on."""
        for turn, (known, _) in enumerate(self.followed):
            if known is places:
                return turn
        self.followed.append((places, places.follow(self.n, self.real)))
        return len(self.followed) - 1

    @torch.compiler.disable
    def record(self) -> None:
        """Tell who asked what was kept."""
        assert self.request.record is not None and self.kept is not None
        self.request.record.append(self.kept.map(Tensor.detach))

    def leave(self, vectors: Tensor) -> Tensor:
        """What the model returns in place of the vectors of its last layer: one for each of the n tokens."""
        if self.kept is not None:
            self.record()
        vectors = with_gradients_of(self.poolings.values(), vectors)
        return vectors if self.layout is None else spread(vectors, self.tokens(self.layout), self.n)


class ReadPart(Pass):
    """Reads the beginning of a prompt, of which is told what is to be pooled, before another pass reads on.

    Args:
        regions: [B, n] as in `Layout`.
        others: the arguments of `Pass`.
    """

    def __init__(self, regions: Tensor, *others: Any):
        super().__init__(*others)
        self.regions = regions

    def begin_prompt(self, tokens: Tensor, given: Mapping[str, Any], window: int | None) -> None:
        if bool(self.regions.any()):
            check_kind(self.kind)
            self.start = Layout.of_prompt(torch.ones_like(self.regions, dtype=torch.bool), self.regions)
            self.due = [(int(index), pooling) for index, pooling in self.poolings.items()]
