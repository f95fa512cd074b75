"""The causal language models whose prompts can be pooled between their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """One kind of language models.

    Attributes:
        stack: class name of the module that runs the layers.
        layers: attribute of the stack that holds the layers.
        cache: the argument by which a layer gets the cache.
    """

    stack: str
    layers: str = "layers"
    cache: str = "past_key_values"


FAMILIES: dict[str, Family] = {  # by the model type of a configuration
    "gemma3_text": Family("Gemma3TextModel"),
    "gpt2": Family("GPT2Model", "h"),
    "gpt_neox": Family("GPTNeoXModel", cache="layer_past"),
    "llama": Family("LlamaModel"),
    "mistral": Family("MistralModel"),
    "olmo2": Family("Olmo2Model"),
    "phi3": Family("Phi3Model"),
    "qwen2": Family("Qwen2Model"),
    "qwen3": Family("Qwen3Model"),
    "smollm3": Family("SmolLM3Model"),
}


def window_of(config: Any, index: int) -> int | None:
    """How many tokens a layer looks back, itself included; None: all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[index] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)
