"""Hooks on a language model, on its stack of layers, and on the layers. They hold no state; `state` does."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin

from shtopk.integrations.decoders.cache import own
from shtopk.integrations.decoders.families import Family, cache_in, cache_name, window_of
from shtopk.integrations.decoders.few_logits import with_few_logits
from shtopk.integrations.decoders.passing import Pass
from shtopk.integrations.decoders.state import REQUEST, RUNNING, begin_call, request_around, take_request
from shtopk.integrations.layers.arguments import as_called, by_name
from shtopk.integrations.layers.between import LayerHook
from shtopk.integrations.layers.state import still_under_way

ASKED = ("k", "compress_mask")  # arguments of a call that are ours
ANSWERS_ONCE = "ForSequenceClassification"  # names of heads that answer once for a row end so
FOLLOW = ("position_embeddings", "position_ids")  # arguments of a layer with entries for all tokens


class TakeRequest:
    """Runs before a model: take what the caller wants of the prompt; a language model's labels tell where it ends.

    Args:
        model: the model.
        stack: the module inside that runs the layers.
    """

    def __init__(self, model: nn.Module, stack: nn.Module):
        self.stack = stack
        self.names = list(inspect.signature(model.forward).parameters)
        self.labelled = isinstance(model, GenerationMixin)  # a label for each token
        heads = [kind for kind in type(model).__mro__ if kind.__name__.endswith(ANSWERS_ONCE)]
        self.answers_once = bool(heads)
        self.looks_for_the_end = any(kind.__module__.startswith("transformers.") for kind in heads)

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        wanted = {name: kwargs.pop(name) for name in ASKED if name in kwargs}
        if self.labelled:
            wanted["labels"] = by_name(self.names, args, kwargs).get("labels")
            self.divide_labels(model, kwargs, wanted["labels"])
            plain = request_around(model) is REQUEST.first
            wanted["learning"] = model.training and torch.is_grad_enabled() and plain
        begin_call(self.stack, wanted, request_around(model))
        return self.without_padding(model, args, kwargs) if self.answers_once else (args, kwargs)

    def divide_labels(self, model: nn.Module, given: dict, labels: Any) -> None:
        """Let labels [T], as `with_few_logits` makes them, follow the rows of a replica of `nn.DataParallel`, which
        gets a share of T, as if they were rows, too.
        """
        shifted = given.get("shift_labels")
        if getattr(model, "_is_replica", False) and labels is not None and shifted is not None and shifted.dim() == 1:
            given["shift_labels"] = with_few_logits({"labels": labels})["shift_labels"]

    def without_padding(self, model: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments with a mask that ends each text where a head of transformers looks for its end: at the last id
        that is not padding. No vector there depends on those behind it. Where no mask is given, it hides the padding
        before the text, too; between both ends a token with the id of padding ends a turn.
        """
        given, padding = by_name(self.names, args, kwargs), model.config.pad_token_id
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if ids is None or padding is None:
            return args, kwargs
        other = (ids != padding).int()
        to_the_end = other.flip(-1).cummax(-1).values.flip(-1)
        if mask is None:
            given["attention_mask"] = (other.cummax(-1).values * to_the_end).long()
        elif self.looks_for_the_end and mask.shape == ids.shape:
            given["attention_mask"] = mask.where((to_the_end > 0) | ~other.any(-1, keepdim=True), 0)
        return as_called(self.names, args, given)


class EndCall:
    """Runs after a model, also if it failed, even before its call or its pass began.

    Args:
        stack: as above.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, model: nn.Module, args: tuple, output: Any) -> None:
        take_request(self.stack, request_around(model))


class BeginPass:
    """Runs before the layers: begin a pass.

    A replica that `nn.DataParallel` makes of a stack has the same hooks. So a pass goes by the stack that was hooked.

    Args:
        stack: the module that runs the layers.
        family: of the model.
        hooks: on the layers, by number.
    """

    def __init__(self, stack: nn.Module, family: Family, hooks: Sequence[tuple[int, LayerHook]]):
        self.stack, self.family, self.hooks = stack, family, hooks
        self.names = list(inspect.signature(stack.forward).parameters)

    def __call__(self, stack: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if not torch.compiler.is_compiling():
            layers = getattr(stack, self.family.layers)
            for index, hook in self.hooks:
                hook.move_to(layers[index])
        request = take_request(self.stack, request_around(stack))
        if wanted := {name: kwargs.pop(name) for name in ASKED if kwargs.get(name) is not None}:
            request = request.but(wanted)
        given = by_name(self.names, args, kwargs)
        tokens = given.get("inputs_embeds") if given.get("input_ids") is None else given["input_ids"]
        pooling, kind = stack.prompt_pooling, str(stack.config._attn_implementation)
        poolings = {} if any(one is self.stack.prompt_pooling for one in request.unpooled) else pooling
        outer = still_under_way(RUNNING.get(), self.stack)
        run = (request.begin or Pass)(poolings, pooling.keep_last, request, kind, self.stack, outer)
        RUNNING.set(run)
        if tokens is not None:  # or the model says what is wrong
            run.begin(tokens, given, getattr(stack.config, "sliding_window", None))
        return args, kwargs


class EndPass:
    """Runs after the layers, also if one of them failed, or the pass before it began: end the pass.

    Args:
        stack: as above.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, stack: nn.Module, args: tuple, output: Any) -> None:
        run = RUNNING.get()
        if run is not None and run.of is self.stack:
            RUNNING.set(run.outer)


class PoolPrompt(LayerHook):
    """Runs before a layer: pool the prompt if a pooling is due, and let mask, positions and cache follow."""

    def __init__(self, layer: nn.Module, index: int, stack: Any):
        super().__init__(layer)
        self.index, self.stack = index, stack
        self.names = list(inspect.signature(layer.forward).parameters)
        self.window = window_of(stack.config, index)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        run = RUNNING.get()
        if run is None or run.of is not self.stack:
            return None
        given = by_name(self.names, args, kwargs)
        name = self.names[0]
        given[name] = run.enter(self.index, given[name])
        for argument in FOLLOW:
            if given.get(argument) is not None:
                given[argument] = run.positions(given[argument], layer)
        cache = cache_name(given)
        if cache is not None and self.index == 0 and not torch.compiler.is_compiling():
            own(given[cache])
        if cache is not None and not run.remembers(self.index):
            given[cache] = None
        given["attention_mask"] = run.mask(
            self.index, given.get("attention_mask"), cache_in(given), self.window, given[name].dtype
        )
        return as_called(self.names, args, given)


class LeaveLayers(LayerHook):
    """Runs after the last layer: give the model a vector for each token again."""

    def __init__(self, layer: nn.Module, stack: nn.Module):
        super().__init__(layer)
        self.stack = stack

    def register(self, standing: nn.Module) -> Any:
        return standing.register_forward_hook(self)

    def __call__(self, layer: nn.Module, args: tuple, output: Any) -> Any:
        run = RUNNING.get()
        if run is None or run.of is not self.stack:
            return output
        return (run.leave(output[0]), *output[1:]) if isinstance(output, tuple) else run.leave(output)
