"""Load models that were saved with the poolings between their layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, PreTrainedModel

from shtopk.integrations.adapters import PooledModel, classes_of, let_adapters_train
from shtopk.integrations.decoders import installation as decoders
from shtopk.integrations.decoders.generation import PooledDecoder
from shtopk.integrations.layers import installation as encoders
from shtopk.options import as_saved

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class Kind(NamedTuple):
    """One of the ways to pool between layers.

    Attributes:
        install: puts the poolings that a configuration describes into a model.
        check: refuses models whose head is not served by it.
        poolings: attribute of the stack that holds them.
        mixin: what is mixed into the model's class.
    """

    install: Callable[..., Any]
    check: Callable[[PreTrainedModel], None]
    poolings: str
    mixin: type[PooledModel]


KINDS = {  # by the name of the description in a configuration
    "encoder_pooling": Kind(encoders.install, encoders.check_head, "pooling", PooledModel),
    "decoder_pooling": Kind(decoders.install, decoders.check_head, "prompt_pooling", PooledDecoder),
}


def load_pooled(model_class: Any, name: str, **options: Any) -> Any:
    """Load a model that `pool_encoder` or `pool_decoder` changed and `save_pretrained` saved.

    It takes the place of `model_class.from_pretrained(name, **options)`, which would load such a model without its
    poolings, though its configuration describes them.

    Args:
        model_class: the model's class, or an Auto class.
        name: folder or hub name.
        options: of `from_pretrained`.

    Returns:
        The model, pooled as it was when it was saved.

    Raises:
        ValueError: a checkpoint that does not describe its poolings, or lacks their weights.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> model = load_pooled(AutoModelForSequenceClassification, "my-pooled-bert")  # doctest: +SKIP
    """
    config = options.pop("config", None)
    if config is None:
        hub = {option: options[option] for option in HUB_OPTIONS if option in options}
        # A configuration would take "auto" for the name of a type.
        hub |= {name: options.pop(name) for name in ("dtype", "torch_dtype") if options.get(name) == "auto"}
        config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **options)
        options |= hub
    described = next((key for key in KINDS if "k_by_layer" in (getattr(config, key, None) or {})), None)
    if described is None:
        raise ValueError(
            f"expected a checkpoint saved after pool_encoder or pool_decoder in {name}, its configuration says nothing"
        )
    kind, description = KINDS[described], dict(getattr(config, described))
    if "initial_temperature" not in description:  # 0.1.0 left its defaults out
        description = {"initial_temperature": 4.0} | description
    description = as_saved(description)
    if issubclass(model_class, PooledModel):
        model_class, _ = classes_of(model_class)
    if not issubclass(model_class, PreTrainedModel):
        with torch.device("meta"):
            model_class = type(model_class.from_config(config))

    def build(self, config, *args, **kwargs):
        model_class.__init__(self, config, *args, **kwargs)
        kind.check(self)
        kind.install(self, **description)

    pooled: Any = type(model_class.__name__, (model_class,), {"__init__": build, "__module__": model_class.__module__})
    with_report = options.pop("output_loading_info", False)
    model, report = pooled.from_pretrained(name, config=config, output_loading_info=True, **options)
    if lacking := sorted(key for key in report["missing_keys"] if f".{kind.poolings}." in f".{key}"):
        raise ValueError(f"the weights in {name} lack {lacking[0]}: the model was saved without its poolings")
    model.__class__ = model_class
    let_adapters_train(model, kind.mixin)
    return (model, report) if with_report else model
