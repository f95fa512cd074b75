"""Poolings and their hooks put between the layers of a causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from shtopk.integrations.decoders.families import FAMILIES, Family
from shtopk.integrations.decoders.hooks import BeginPass, EndCall, EndPass, LeaveLayers, PoolPrompt, TakeRequest
from shtopk.integrations.layers.between import LayerHook, LayerPoolings, checked_layers, new_poolings, record_of
from shtopk.options import PoolingOptions
from shtopk.pooling import TopKPooling

PROTECTED = (0,)  # the first token, which attention goes to when it has nothing to look at

# Models with names that end so answer for each token of the prompt.
NEEDS_EVERY_TOKEN = ("ForTokenClassification", "ForQuestionAnswering")


class PromptPooling(LayerPoolings):
    """The poolings of a language model."""

    field = "decoder_pooling"

    def __init__(self, poolings: Mapping[str, TopKPooling], keep_last: int):
        super().__init__(poolings)
        self.keep_last = keep_last

    def description(self) -> dict[str, Any]:
        return super().description() | {"keep_last": self.keep_last}

    def extra_repr(self) -> str:
        return f"keep_last={self.keep_last}"


def install(
    model: Any,
    k_by_layer: Mapping[Any, int | float],
    options: PoolingOptions | None = None,
    *,
    keep_last: int = 1,
    **by_name: Any,
) -> PoolingOptions:
    """Do what `pool_decoder` does, but leave class and configuration alone.

    Returns:
        The options in force, defaults included.
    """
    stack, family = find(model)
    layers = getattr(stack, family.layers)
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError(f"expected layers that share no modules, got a {type(stack).__name__} with one in two places")
    by_layer = checked_layers(k_by_layer, 1, len(layers), type(stack).__name__, "layer 0 counts the tokens")
    if not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 1:
        raise ValueError(f"expected keep_last >= 1, got {keep_last!r}: the last token predicts what follows")
    record = record_of(options, by_name, {"protected": PROTECTED})
    poolings = new_poolings(by_layer, record, layers, stack.config.hidden_size, stack.training)
    stack.prompt_pooling = PromptPooling(poolings, keep_last)
    handles = stack.prompt_pooling.handles
    on_layers: list[tuple[int, LayerHook]] = [
        (index, PoolPrompt(layer, index, stack)) for index, layer in enumerate(layers)
    ]
    on_layers.append((len(layers) - 1, LeaveLayers(layers[-1], stack)))
    handles.extend(hook for _, hook in on_layers)
    handles.append(stack.register_forward_pre_hook(BeginPass(stack, family, on_layers), with_kwargs=True))
    handles.append(stack.register_forward_hook(EndPass(stack), always_call=True))
    if model is not stack:
        handles.append(model.register_forward_pre_hook(TakeRequest(model, stack), with_kwargs=True))
        handles.append(model.register_forward_hook(EndCall(stack), always_call=True))
    return record


def find_stack(model: Any) -> Any:
    """The module inside a model that runs the layers and pools between them; None if nothing pools."""
    return next((x for x in model.modules() if isinstance(getattr(x, "prompt_pooling", None), PromptPooling)), None)


def pooled_stack(model: nn.Module) -> Any:
    """The same.

    Raises:
        ValueError: a model that is not pooled.
    """
    stack = find_stack(model)
    if stack is None:
        raise ValueError(f"expected a model that pool_decoder was called on, got an unpooled {type(model).__name__}")
    return stack


def find(model: Any) -> tuple[Any, Family]:
    """Find (stack, family): the module that runs the layers."""
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"expected a model of transformers, got {type(model).__name__}")
    kind = model.config.model_type
    known = ", ".join(FAMILIES)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} has an encoder: call pool_encoder; pool_decoder is for {known}")
    family = FAMILIES.get(kind)
    if family is None:
        raise ValueError(f"cannot pool the prompts of a model of type {kind}; it works for {known}")
    stacks = [x for x in model.modules() if any(base.__name__ == family.stack for base in type(x).__mro__)]
    if not stacks or getattr(model.config, "add_cross_attention", False):
        raise ValueError(f"expected a causal language model of type {kind}, got {type(model).__name__}")
    config = stacks[0].config
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        raise ValueError(
            f"expected tokens that attend to those before them, got a bidirectional {type(model).__name__}"
        )
    return stacks[0], family


def check_head(model: PreTrainedModel) -> None:
    """Refuse heads that read every token."""
    name = type(model).__name__
    if any(base.__name__.endswith(NEEDS_EVERY_TOKEN) for base in type(model).__mro__):
        raise ValueError(f"{name} answers for every token of the prompt, which pooling leaves out; use another head")
