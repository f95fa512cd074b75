"""The causal language models whose prompts can be pooled between their layers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

CACHE = ("cache", "past_key_values", "layer_past")  # its names: since transformers 5.24, before, in GPT-NeoX's layers


@dataclass(frozen=True)
class Family:
    """One kind of language models.

    Attributes:
        stack: class name of the module that runs the layers.
        layers: attribute of the stack that holds the layers.
    """

    stack: str
    layers: str = "layers"


FAMILIES: dict[str, Family] = {  # by the model type of a configuration
    "gemma3_text": Family("Gemma3TextModel"),
    "gpt2": Family("GPT2Model", "h"),
    "gpt_neox": Family("GPTNeoXModel"),
    "llama": Family("LlamaModel"),
    "mistral": Family("MistralModel"),
    "olmo2": Family("Olmo2Model"),
    "phi3": Family("Phi3Model"),
    "qwen2": Family("Qwen2Model"),
    "qwen3": Family("Qwen3Model"),
    "smollm3": Family("SmolLM3Model"),
}


def cache_name(given: Mapping[str, Any]) -> str | None:
    """The name by which arguments or an output hold a cache; None if they hold none."""
    return next((name for name in CACHE if given.get(name) is not None), None)


def cache_in(given: Mapping[str, Any]) -> Any:
    """The cache among arguments, or in an output; None if there is none."""
    name = cache_name(given)
    return None if name is None else given[name]


def with_cache(module: nn.Module, cache: Any) -> dict[str, Any]:
    """The argument that gives a module a cache."""
    names = inspect.signature(module.forward).parameters
    return {next(name for name in CACHE if name in names): cache}


def window_of(config: Any, index: int) -> int | None:
    """How many tokens a layer looks back, itself included; None: all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[index] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)
