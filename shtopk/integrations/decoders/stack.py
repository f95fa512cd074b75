"""The stack of layers of a language model whose prompt is pooled, and the poolings in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from shtopk.pooling import TopKPooling


class PromptPooling(nn.ModuleDict):
    """The poolings of a language model, by the number of the layer whose input they pool."""

    def __init__(self, poolings: Mapping[str, TopKPooling], keep_last: int):
        super().__init__(poolings)
        self.keep_last = keep_last
        self.handles: list[Any] = []  # of the hooks

    def extra_repr(self) -> str:
        return f"keep_last={self.keep_last}"


def find_stack(model: nn.Module) -> Any:
    """The module inside a model that runs the layers and pools between them; None if nothing does."""
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
