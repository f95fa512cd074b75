"""Hooks that pool between the layers of an encoder, whose code stays as it is.

The input of a layer is pooled before the layer sees it. What this layer and those after it get of every token, such as
masks and positions, is gathered at the position of each slot's heaviest token. The hooks hold no state: what a forward
pass has pooled so far is kept beside it, one for each thread, so that copies of a model may run side by side.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextvars import ContextVar
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
    """What one forward pass has pooled so far; choice is of all tokens, None before the first pooling."""

    def __init__(self, poolings: EncoderPooling):
        self.due: list[tuple[int, Any]] = [(int(layer), pooling) for layer, pooling in poolings.items()]
        self.choice: TopK | None = None

    def pool(self, pooling: TopKPooling, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool [B, n, d] to [B, k, d]; also the position of each slot among these n."""
        n = hidden_states.shape[1]
        k = pooling.k if isinstance(pooling.k, int) else math.ceil(pooling.k * n)
        pooled = pooling(hidden_states, mask, k=min(k, n))
        self.choice = pooled.choice if self.choice is None else self.choice.then(pooled.choice)
        return pooled.hidden_states, pooled.positions


class Current:
    """The pass that is under way, one for each thread. Compilers cannot trace that, and get one for all."""

    def __init__(self) -> None:
        self.in_thread: ContextVar[Pass | None] = ContextVar("shtopk_pass", default=None)
        self.compiled: Pass | None = None

    def get(self) -> Pass | None:
        return self.compiled if torch.compiler.is_compiling() else self.in_thread.get()

    def set(self, passing: Pass | None) -> None:
        if torch.compiler.is_compiling():
            self.compiled = passing
        else:
            self.in_thread.set(passing)


CURRENT = Current()


class PoolInput:
    """Before a layer: pool its input if that is due, and let its arguments follow the tokens."""

    def __init__(self, layer: nn.Module, index: int, family: Family):
        self.index, self.family = index, family
        self.names = list(inspect.signature(layer.forward).parameters)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        passing = CURRENT.get()
        if passing is None:
            return None
        first, *names = self.names
        given = dict(zip(self.names, args, strict=False)) | kwargs
        hidden_states = given.pop(first)
        local: Tensor | None = None
        while passing.due and passing.due[0][0] <= self.index:  # an earlier one, if its layer was dropped
            pooling = passing.due.pop(0)[1]
            n = hidden_states.shape[1]
            if n <= len(pooling.protected):
                continue
            mask = real_tokens(given.get("attention_mask")) if passing.choice is None else passing.choice.mask
            self.check(given, n)
            hidden_states, positions = passing.pool(pooling, hidden_states, mask)
            local = positions if local is None else local.gather(1, positions)
        if passing.choice is not None:
            self.gather(layer, given, passing.choice, local)
        given = {first: hidden_states} | given
        return tuple(given.pop(name) for name in self.names[: len(args)]), given

    def gather(self, layer: nn.Module, given: dict, choice: TopK, local: Tensor | None) -> None:
        """Arguments of all tokens to those of the slots; local: positions among the tokens of the layer before, if
        this one's input has just been pooled."""
        for name, follow in self.family.gathers.items():
            if given.get(name) is None:
                continue
            positions = local if name == self.family.handed_on else choice.positions
            if positions is not None:
                given[name] = follow(given[name], positions, layer)
        if given.get("attention_mask") is not None:
            given["attention_mask"] = without_empty_slots(given["attention_mask"], choice.mask)

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


def real_tokens(mask: Any) -> Tensor | None:
    """[B, n] bool from the mask that a layer gets: of tokens, or of pairs, bool or added to the scores; None: all."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise ValueError(
            f"expected an attention mask that is a tensor, got {type(mask).__name__}; load the model with "
            "attn_implementation='sdpa' or 'eager'"
        )
    if mask.dim() == 4:  # a real token attends to itself, in a sliding window too
        mask = mask[:, 0]
        mask = mask[:, 0] if mask.shape[1] == 1 else mask.diagonal(dim1=-2, dim2=-1)
        return mask >= 0 if mask.is_floating_point() else mask != 0
    return mask != 0


def without_empty_slots(mask: Tensor, filled: Tensor) -> Tensor:
    """A gathered mask, closed for slots that hold no token."""
    if mask.dim() == 2:
        return mask * filled
    closed = ~filled[:, None, None, :]
    return mask.masked_fill(closed, torch.finfo(mask.dtype).min if mask.is_floating_point() else 0)


def begin(stack: Any, args: tuple) -> None:
    """Before the encoder runs."""
    CURRENT.set(Pass(stack.pooling))


def tell(model: nn.Module, args: tuple, output: Any) -> Any:
    """After the model ran: its output says what was kept, as attributes that are not among its keys."""
    passing = CURRENT.get()
    CURRENT.set(None)
    if passing is not None and passing.choice is not None and isinstance(output, ModelOutput):
        output.pooled_attention_mask, output.positions = passing.choice.mask, passing.choice.positions
        output.choice = passing.choice
    return output


def carry_mask(encoder: nn.Module, args: tuple, output: Any) -> Any:
    """After an encoder-decoder's encoder ran: `generate` keeps its output, so the mask of the slots goes along."""
    passing = CURRENT.get()
    if passing is not None and passing.choice is not None and isinstance(output, ModelOutput):
        output["attention_mask"] = passing.choice.mask.long()
    return output


def take_mask(model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Before an encoder-decoder runs: where it gets the encoder's output, that one's mask is the right one."""
    CURRENT.set(None)
    mask = getattr(kwargs.get("encoder_outputs"), "attention_mask", None)
    return None if mask is None else (args, kwargs | {"attention_mask": mask})


def see_slots(decoder: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Before the decoder runs: the mask of the tokens becomes that of the slots."""
    passing = CURRENT.get()
    if passing is None or passing.choice is None:
        return None
    return args, kwargs | {"encoder_attention_mask": passing.choice.mask.long()}
