"""What the configuration of a model says of the poolings between its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from shtopk.integrations.layers.between import LayerPoolings


def own_configurations(model: nn.Module) -> None:
    """Give a model configurations of its own: others may have been built from the same ones, and stay as they are."""
    copies: dict[int, Any] = {}  # one of each, as modules, and configurations of several models, share them
    for module in _configured(model):
        vars(module)["config"] = copy.deepcopy(module.config, copies)


def describe(model: nn.Module) -> None:
    """Write the poolings inside a model, as they are now, into its configuration and those of the parts that have
    them inside.
    """
    for part in _configured(model):
        for module in part.modules():
            if isinstance(module, LayerPoolings):
                setattr(part.config, module.field, module.description())


def forget(model: nn.Module, poolings: LayerPoolings) -> None:
    """Undo it, for poolings that were removed."""
    for part in _configured(model):
        vars(part.config).pop(poolings.field, None)


def _configured(model: nn.Module) -> Iterator[Any]:
    """The modules with a configuration in a model."""
    for module in model.modules():
        if isinstance(vars(module).get("config"), PreTrainedConfig):
            yield module
