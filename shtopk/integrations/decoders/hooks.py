"""Hooks on a language model, on its stack of layers, and on the layers. They hold no state; `state` does."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from shtopk.integrations.decoders.families import Family, window_of
from shtopk.integrations.decoders.passing import Pass
from shtopk.integrations.decoders.state import STATE, asking

ASKED = ("k", "compress_mask")  # arguments of a call that are ours
FOLLOW = ("position_embeddings", "position_ids")  # arguments of a layer with entries for all tokens


class TakeRequest:
    """Runs before a language model: take what the caller wants of the prompt; labels tell where it ends."""

    def __init__(self, model: nn.Module):
        self.names = list(inspect.signature(model.forward).parameters)

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        labels = (dict(zip(self.names, args, strict=False)) | kwargs).get("labels")
        STATE.ask(labels=labels, **{name: kwargs.pop(name) for name in ASKED if name in kwargs})
        return args, kwargs


def end_request(model: nn.Module, args: tuple, output: Any) -> None:
    """Runs after a language model, also if it failed."""
    STATE.answered()


class BeginPass:
    """Runs before the layers: begin a pass."""

    def __init__(self, stack: nn.Module):
        self.names = list(inspect.signature(stack.forward).parameters)

    def __call__(self, stack: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        with asking(**{name: kwargs.pop(name) for name in ASKED if name in kwargs}):
            request = STATE.request
        given = dict(zip(self.names, args, strict=False)) | kwargs
        tokens = given.get("inputs_embeds") if given.get("input_ids") is None else given["input_ids"]
        pooling = stack.prompt_pooling
        poolings = {} if pooling in request.unpooled else {int(i): its for i, its in pooling.items()}
        run = (request.begin or Pass)(poolings, pooling.keep_last, request, STATE.running)
        STATE.running = run
        if tokens is not None:  # or the model says what is wrong
            cache = given.get("past_key_values")
            seen = 0 if cache is None else int(cache.get_seq_length())
            run.begin(tokens.shape[1], seen, tokens.shape[0], given.get("attention_mask"), tokens.device)
        return args, kwargs


def end_pass(stack: nn.Module, args: tuple, output: Any) -> None:
    """Runs after the layers, also if one of them failed: end the pass."""
    if STATE.running is not None:
        STATE.running = STATE.running.outer


class PoolPrompt:
    """Runs before a layer: pool the prompt if a pooling is due, and let mask, positions and cache follow."""

    def __init__(self, layer: nn.Module, index: int, family: Family, config: Any):
        self.index, self.family, self.config = index, family, config
        self.names = list(inspect.signature(layer.forward).parameters)
        self.window = window_of(config, index)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        run = STATE.running
        if run is None:
            return None
        given = dict(zip(self.names, args, strict=False)) | kwargs
        name = self.names[0]
        given[name] = run.enter(self.index, given[name])
        for argument in FOLLOW:
            if given.get(argument) is not None:
                given[argument] = run.positions(given[argument], layer)
        if not run.remembers(self.index):
            given[self.family.cache] = None
        kind, cache = str(self.config._attn_implementation), given.get(self.family.cache)
        given["attention_mask"] = run.mask(
            self.index, given.get("attention_mask"), cache, self.window, kind, given[name].dtype
        )
        return tuple(given.pop(name) for name in self.names[: len(args)]), given


def leave_layers(layer: nn.Module, args: tuple, output: Any) -> Any:
    """Runs after the last layer: give the model a vector for each token again."""
    run = STATE.running
    if run is None:
        return output
    return (run.leave(output[0]), *output[1:]) if isinstance(output, tuple) else run.leave(output)
