"""What the configuration of a model says of the poolings between its layers."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedConfig


def own_configurations(model: nn.Module) -> None:
    """Give a model configurations of its own: others may have been built from the same ones, and stay as they are."""
    copies: dict[int, Any] = {}  # one of each, as modules, and configurations of several models, share them
    for module in model.modules():
        if isinstance(vars(module).get("config"), PreTrainedConfig):
            vars(module)["config"] = copy.deepcopy(vars(module)["config"], copies)
