"""A module that is new in a model, as an adapter of PEFT trains it in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn


class NewModule(ModulesToSaveWrapper):
    """A module of which each adapter that learns has a copy of its own, those that are added later, too.

    Args:
        module: as it was drawn.
        name: of the module.
        adapter: the first one.
        recipes: of all adapters in the model, by name; those that are added later will stand there.
    """

    def __init__(self, module: nn.Module, name: str, adapter: str, recipes: Mapping[str, Any]):
        super().__init__(without_adapter(module), adapter)
        self.name, self.recipes = name, recipes
        self.set_adapter(adapter)
        self.tell(adapter)

    def add(self, adapter: str) -> None:
        """Give an adapter its copy, if it has none."""
        if adapter not in self.modules_to_save:
            self.update(adapter)
            self.tell(adapter)

    def tell(self, adapter: str) -> None:
        """Write into an adapter's recipe that it trains and saves this module."""
        recipe = self.recipes[adapter]
        recipe.modules_to_save = sorted({*(recipe.modules_to_save or ()), self.name})

    def check_set_adapter(self, adapter_name: Any) -> Any:
        """Of PEFT, which asks before it makes adapters active, and so when one was added."""
        without_adapter(self)
        for adapter, recipe in self.recipes.items():
            if not recipe.inference_mode:
                self.add(adapter)
        return super().check_set_adapter(adapter_name)


def without_adapter(module: nn.Module) -> nn.Module:
    """A module without the adapters that target_modules="all-linear" puts into each linear layer: it is trained
    itself.
    """
    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    for name, child in module.named_children():
        setattr(module, name, without_adapter(child))
    return module
