"""Hooks that pool between the layers of an encoder, whose code stays as it is.

The input of a layer is pooled before the layer sees it. What this layer and those after it get of every token, such as
masks and positions, is gathered at the position of each slot's heaviest token. The hooks hold no state: what a forward
pass has pooled so far is kept beside it, for each thread, so that copies of a model may run side by side, and one
inside another.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from shtopk.integrations.families import Family
from shtopk.pooling import TopKPooling
from shtopk.selection import TopK


class EncoderPooling(nn.ModuleDict):
    """The poolings of an encoder, by the number of the layer whose input they pool."""

    def __init__(self, poolings: Mapping[str, TopKPooling]):
        super().__init__(poolings)
        self.handles: list[Any] = []  # of the hooks


class Pass:
    """What one forward pass has pooled so far.

    Attributes:
        poolings: of the encoder that runs.
        due: those that have not pooled yet.
        choice: of all tokens, None before the first pooling; its values are what the layer got.
        outer: the pass inside which this one runs.
        traced: whether a compiler made the code that runs.
    """

    def __init__(self, poolings: EncoderPooling, outer: Pass | None):
        self.poolings, self.outer = poolings, outer
        self.due: list[tuple[int, Any]] = [(int(layer), pooling) for layer, pooling in poolings.items()]
        self.choice: TopK | None = None
        self.traced = torch.compiler.is_compiling()

    def pool(self, pooling: TopKPooling, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool [B, n, d] to [B, k, d]; also the position of each slot among these n."""
        n = hidden_states.shape[1]
        k = pooling.k if isinstance(pooling.k, int) else math.ceil(pooling.k * n)
        if n <= len(pooling.protected):
            choice = every_token(hidden_states, mask)
        else:
            choice = pooling(hidden_states, mask, k=min(k, n)).choice
        self.choice = choice if self.choice is None else self.choice.then(choice)
        return choice.values, choice.positions


def every_token(hidden_states: Tensor, mask: Tensor | None) -> TopK:
    """The choice that leaves all tokens where they are."""
    real = torch.ones_like(hidden_states[..., 0], dtype=torch.bool) if mask is None else mask
    index = torch.arange(real.shape[1], device=real.device).expand_as(real)
    weights = real.to(torch.promote_types(hidden_states.dtype, torch.float32))
    scores = torch.zeros_like(hidden_states[..., 0])
    return TopK(hidden_states, scores, real, index.masked_fill(~real, 0), weights, index.masked_fill(~real, -1))


class Place(threading.local):
    """Where a thread is.

    Attributes:
        running: the innermost pass under way.
        finished: the last one that came to its end, while a model runs that is going to tell of it.
        depth: how many such models are under way, one inside the other.
    """

    running: Pass | None = None
    finished: Pass | None = None
    depth: int = 0


class Current:
    """Where we are: in a `Place` for each thread.

    Compilers cannot trace those, so code that they made has one place for all threads. Layers that were compiled in a
    model that was not have to know where that one is, and the other way around.
    """

    def __init__(self) -> None:
        self.place = Place()
        self.running: Pass | None = None
        self.finished: Pass | None = None
        self.depth = 0

    def get_running(self) -> Pass | None:
        return self.running if torch.compiler.is_compiling() else self.place.running

    def set_running(self, passing: Pass | None) -> None:
        self.running = passing
        if not torch.compiler.is_compiling():
            self.place.running = passing

    def get_finished(self) -> Pass | None:
        if torch.compiler.is_compiling():
            return self.finished
        if self.place.finished is None and self.finished is not None and self.finished.traced:
            return self.finished
        return self.place.finished

    def set_finished(self, passing: Pass | None) -> None:
        self.finished = passing
        if not torch.compiler.is_compiling():
            self.place.finished = passing

    def go(self, step: int) -> int:
        """Into a model (1) or out of it (-1); the depth there."""
        if torch.compiler.is_compiling():
            self.depth = max(0, self.depth + step)
            return self.depth
        self.depth = self.place.depth = max(0, self.place.depth + step)
        return self.place.depth  # its own: other threads may have changed the other


CURRENT = Current()


class PoolInput:
    """Before a layer: pool its input if that is due, and let its arguments follow the tokens."""

    def __init__(self, layer: nn.Module, index: int, family: Family):
        self.index, self.family = index, family
        self.names = list(inspect.signature(layer.forward).parameters)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        passing = CURRENT.get_running()
        if passing is None:
            return None
        given = dict(zip(self.names, args, strict=False)) | kwargs
        hidden_states = given.pop(self.names[0])
        local: Tensor | None = None  # positions among the vectors that the layer before this one answered
        while passing.due and passing.due[0][0] <= self.index:  # an earlier one, if its layer was dropped
            pooling = passing.due.pop(0)[1]
            self.check(given, hidden_states.shape[1])
            mask = self.real_tokens(given.get("attention_mask")) if passing.choice is None else passing.choice.mask
            hidden_states, positions = passing.pool(pooling, hidden_states, mask)
            local = positions if local is None else local.gather(1, positions)
        if passing.choice is not None:
            self.gather(layer, given, passing.choice, local)
        given = {self.names[0]: hidden_states} | given
        return tuple(given.pop(name) for name in self.names[: len(args)]), given

    def gather(self, layer: nn.Module, given: dict, choice: TopK, local: Tensor | None) -> None:
        """Arguments of all tokens become those of the slots.

        What one layer hands on to the next (T5's position bias) is of the vectors of the layer before: it is gathered
        where these have just been pooled, and nowhere else.
        """
        for name, follow in self.family.gathers.items():
            positions = local if name == self.family.handed_on else choice.positions
            if given.get(name) is not None and positions is not None:
                given[name] = follow(given[name], positions, layer)
        if given.get("attention_mask") is not None:
            given["attention_mask"] = self.without_empty_slots(given["attention_mask"], choice.mask)

    def check(self, given: dict, n: int) -> None:
        """Refuse what is not known to follow the tokens, though it seems to concern all n of them."""
        for name, x in given.items():
            known = name in self.family.gathers or name in self.family.ignored
            if x is None or known or not (isinstance(x, Tensor) and n in x.shape):
                continue
            raise ValueError(
                f"expected a layer that takes {', '.join(self.family.gathers)} of all {n} tokens; got {name} "
                f"{list(x.shape)} as well, which is not known to follow the tokens that are kept; leave it out"
            )

    def real_tokens(self, mask: Any) -> Tensor | None:
        """[B, n] bool from the mask that the layer gets, of tokens or of pairs; None: all are real."""
        if mask is None:
            return None
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"expected an attention mask that is a tensor, got {type(mask).__name__}; load the model with "
                "attn_implementation='sdpa' or 'eager'"
            )
        if mask.dim() != 4:
            return mask != 0
        mask = mask[:, 0]
        # A real token attends to itself, in a sliding window too.
        mask = mask[:, 0] if mask.shape[1] == 1 else mask.diagonal(dim1=-2, dim2=-1)
        return mask >= 0 if mask.is_floating_point() and self.family.additive else mask != 0

    def without_empty_slots(self, mask: Tensor, filled: Tensor) -> Tensor:
        """A gathered mask, closed for slots that hold no token."""
        if mask.dim() == 2:
            return mask * filled
        closed = torch.finfo(mask.dtype).min if mask.is_floating_point() and self.family.additive else 0
        return mask.masked_fill(~filled[:, None, None, :], closed)


def begin(stack: Any, args: tuple) -> None:
    """Before the layers run."""
    config = getattr(stack, "config", None)
    flash = "flash" in str(getattr(config, "_attn_implementation", None))
    if flash and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ValueError(
            "expected attention that is told positions, got flash attention, whose sliding window would count the "
            "slots; load the model with attn_implementation='sdpa' or 'eager'"
        )
    CURRENT.set_running(Pass(stack.pooling, CURRENT.get_running()))


def end(stack: nn.Module, args: tuple, output: Any) -> None:
    """After the layers ran, or one of them failed."""
    passing = CURRENT.get_running()
    if passing is not None:
        CURRENT.set_running(passing.outer)
        CURRENT.set_finished(passing)


def enter(model: nn.Module, args: tuple) -> None:
    """Before a model runs that has pooled layers inside."""
    CURRENT.go(1)


class Tell:
    """After it ran, or failed: its output says what was kept, as attributes that are not among its keys.

    path: of what runs the layers, inside the model.
    """

    def __init__(self, path: str):
        self.path = path

    def __call__(self, model: nn.Module, args: tuple, output: Any) -> Any:
        passing = CURRENT.get_finished()
        if CURRENT.go(-1) == 0:
            CURRENT.set_finished(None)
        if passing is None or passing.choice is None or not isinstance(output, ModelOutput):
            return None
        if passing.poolings is model.get_submodule(self.path).pooling:
            output.pooled_attention_mask, output.positions = passing.choice.mask, passing.choice.positions
            output.choice = passing.choice
        return output


def carry_mask(encoder: nn.Module, args: tuple, output: Any) -> Any:
    """After an encoder-decoder's encoder ran: `generate` keeps its output, so the mask of the slots goes along."""
    passing = CURRENT.get_finished()
    if passing is not None and passing.choice is not None and isinstance(output, ModelOutput):
        output["attention_mask"] = passing.choice.mask.long()
    return output


class TakeMask:
    """Before an encoder-decoder runs: where it gets the encoder's output, that one's mask is the right one."""

    def __init__(self, model: nn.Module):
        self.names = list(inspect.signature(model.forward).parameters)

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        CURRENT.set_finished(None)
        given = dict(zip(self.names, args, strict=False)) | kwargs
        mask = getattr(given.get("encoder_outputs"), "attention_mask", None)
        if mask is None:
            return None
        given["attention_mask"] = mask
        return tuple(given.pop(name) for name in self.names[: len(args)]), given


def see_slots(decoder: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Before the decoder runs: the mask of the tokens becomes that of the slots."""
    passing = CURRENT.get_finished()
    if passing is None or passing.choice is None:
        return None
    return args, kwargs | {"encoder_attention_mask": passing.choice.mask.long()}
