"""Adapters of PEFT that change layers train and save the scorers of a model along, whatever their recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from shtopk.integrations.layers.description import describe
from shtopk.pooling import TopKPooling


class TrainsNewModules:
    """A mixin for models whose pooling is new, and useless as it was drawn.

    PEFT freezes and forgets all that `modules_to_save` of a recipe does not name; with task_type="SEQ_CLS" it names
    the classifier itself. Then another scorer is drawn where the adapter is loaded. So scorers, and a copy head, are
    named there once PEFT has put an adapter into the model, which it tells by setting the model's peft_config. An
    adapter that is loaded only to be used stays as it was saved. Prompt tuning puts nothing into the model, and tells
    it nothing: its recipe has to name them.
    """

    @property
    def peft_config(self) -> dict[str, Any]:
        """The recipes of the adapters inside, by the adapter's name."""
        try:
            return vars(self)["peft_config"]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no adapter") from None

    @peft_config.setter
    def peft_config(self, recipes: Mapping[str, Any]) -> None:
        vars(self)["peft_config"] = recipes
        for adapter, recipe in recipes.items():
            if not recipe.inference_mode:
                train_new_modules(self, adapter, recipes)

    @peft_config.deleter
    def peft_config(self) -> None:
        vars(self).pop("peft_config", None)

    def enable_adapters(self: Any) -> None:
        """As in transformers, whose `disable_adapters` switches off what adapters train in full, too, and whose
        `enable_adapters` leaves it so.
        """
        from peft.utils import ModulesToSaveWrapper

        super().enable_adapters()  # type: ignore[misc]
        for module in self.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.enable_adapters(True)


class PooledModel(TrainsNewModules):
    """What `pool_encoder` makes of the class of a model, which keeps its name."""

    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers. The poolings are described as they are now."""
        describe(self)
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return restored, classes_of(type(self)), vars(self)  # a class that is made cannot be pickled by its name


def let_adapters_train(model: nn.Module, mixin: Any = PooledModel) -> None:
    """Make a model that was just pooled one whose adapters train what is new."""
    kind: Any = type(model)
    model.__class__ = pooled_class(kind, mixin)


def let_adapters_forget(model: nn.Module) -> None:
    """Undo it."""
    if isinstance(model, PooledModel):
        model.__class__ = classes_of(type(model))[0]


def classes_of(model_class: type[PooledModel]) -> tuple[type, type]:
    """(the class that a pooled model had, what was mixed into it)."""
    made = next(kind for kind in model_class.__mro__ if len(kind.__bases__) == 2 and issubclass(kind, PooledModel))
    mixin, before = made.__bases__
    return before, mixin


@cache
def pooled_class(model_class: Any, mixin: type[PooledModel]) -> Any:
    """A subclass of a model's class that lets adapters train what is new; the class itself if it does."""
    if issubclass(model_class, mixin):
        return model_class
    names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    return type(model_class.__name__, (mixin, model_class), names)


def restored(model_class: type, mixin: Any) -> Any:
    """An empty object for a copy of a pooled model."""
    return object.__new__(pooled_class(model_class, mixin))


def train_new_modules(model: Any, adapter: str, recipes: Mapping[str, Any]) -> None:
    """Let an adapter that is in a model train and save scorers and a copy head, and write it into its recipe."""
    from peft.utils import ModulesToSaveWrapper

    from shtopk.integrations.wrapped import NewModule

    wrappers = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    trained = {module for wrapper in wrappers for module in wrapper.modules()}
    for owner, name in ((module, name) for module in list(model.modules()) for name in new_modules_of(module)):
        module = getattr(owner, name)
        if isinstance(module, NewModule):
            module.add(adapter)
        elif module not in trained:
            setattr(owner, name, NewModule(module, name, adapter, recipes))


def new_modules_of(module: nn.Module) -> list[str]:
    """Names of the modules directly inside one that are drawn, not loaded, and learn."""
    names = ["scorer"] if isinstance(module, TopKPooling) else ["copy_head"] if hasattr(module, "copy_head") else []
    return [name for name in names if any(True for _ in getattr(module, name).parameters())]
