"""Pool the tokens between the layers of a Hugging Face encoder, so that the layers above are cheap as well."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from shtopk.integrations.between_layers import (
    EncoderPooling,
    PoolInput,
    begin,
    carry_mask,
    see_slots,
    take_mask,
    tell,
)
from shtopk.integrations.families import FAMILIES, Family
from shtopk.pooling import TopKPooling

Model = TypeVar("Model", bound=PreTrainedModel)

OF_EVERY_TOKEN = (
    *("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "ForPreTraining", "ForMaskedImageModeling"),
    *("LMHeadModel", "ForCausalLM", "WithLMHead"),
)


def pool_encoder(model: Model, k_by_layer: Mapping[int | str, int | float], **options: Any) -> Model:
    """Let an encoder pool its tokens between its layers, in place.

    With {2: 64} the input of layer 2 (counted from 0) is pooled to 64 vectors by a new `TopKPooling`, which learns
    with the model; that layer and all above work on these. {2: 256, 4: 64} pools twice. Masks, rotary positions and
    position biases follow the tokens. The model's code is not changed: hooks do it, and `unpool_encoder` takes them
    off.

    The model's output says what was kept by attributes beside its keys: `pooled_attention_mask` [B, k] bool, which
    whoever averages or searches `last_hidden_state` [B, k, d] needs, `positions` [B, k], and `choice`, the `TopK` of
    all tokens. Hidden states above a pooling have k vectors. A decoder sees the k vectors under their own mask, in
    `generate` too.

    `save_pretrained` saves the poolings and their description with the model; `load_pooled` loads both. Call
    `shtopk.anneal(model, progress)` while training.

    Args:
        model: an encoder, alone or with a head or a decoder, of one of the types in `families.FAMILIES`, loaded.
        k_by_layer: {layer: k} in any order, see `TopKPooling` for k. Fewer tokens than k are pooled to as many slots.
        options: of `TopKPooling`, for all layers, such as operator, boost, temperature, scorer. By default `protected`
            is (0,) where the family's heads read [CLS], and slots stand in document order, always.

    Returns:
        The model.

    Raises:
        ValueError: a model that cannot be pooled, a head that needs every token, or an impossible k_by_layer.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> bert = BertModel(BertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64)).eval()
        >>> out = pool_encoder(bert, {2: 8})(input_ids=torch.arange(100, 130).unsqueeze(0))
        >>> out.last_hidden_state.shape, out.positions.shape
        (torch.Size([1, 8, 32]), torch.Size([1, 8]))
    """
    if _pooled_stack(model) is not None:
        raise ValueError(f"this {type(model).__name__} is pooled already; call unpool_encoder first")
    _check_head(model)
    install(model, k_by_layer, **options)
    model.config.encoder_pooling = {"k_by_layer": {str(layer): k for layer, k in k_by_layer.items()}, **options}
    return model


def unpool_encoder(model: Model) -> Model:
    """Undo `pool_encoder`, in place: the model computes what it did before; the poolings are gone.

    Raises:
        ValueError: a model that is not pooled.
    """
    stack = _pooled_stack(model)
    if stack is None:
        raise ValueError(f"expected a model that pool_encoder was called on, got a plain {type(model).__name__}")
    for handle in stack.pooling.handles:
        handle.remove()
    del stack.pooling
    vars(model.config).pop("encoder_pooling", None)
    return model


def load_pooled(model_class: Any, name: str, **options: Any) -> Any:
    """`model_class.from_pretrained(name, **options)` of a checkpoint that was saved pooled.

    Args:
        model_class: the model's class, or an Auto class.
        name: folder or hub name.
        options: of `from_pretrained`.

    Raises:
        ValueError: a checkpoint that does not say how it is pooled.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> model = load_pooled(AutoModelForSequenceClassification, "my-pooled-bert")  # doctest: +SKIP
    """
    config = options.pop("config", None) or AutoConfig.from_pretrained(name)
    description = dict(getattr(config, "encoder_pooling", None) or {})
    if "k_by_layer" not in description:
        raise ValueError(f"expected a checkpoint saved after pool_encoder in {name}, its configuration says nothing")
    if not issubclass(model_class, PreTrainedModel):
        with torch.device("meta"):
            model_class = type(model_class.from_config(config))

    def build(self, config, *args, **kwargs):
        model_class.__init__(self, config, *args, **kwargs)
        install(self, **description)

    pooled: Any = type(model_class.__name__, (model_class,), {"__init__": build, "__module__": model_class.__module__})
    model = pooled.from_pretrained(name, config=config, **options)
    model.__class__ = model_class
    return model


def install(model: Any, k_by_layer: Mapping[Any, int | float], **options: Any) -> None:
    """`pool_encoder` without a word in the model's configuration, for models whose own one says it."""
    encoder, stack, family = _find(model)
    layers = getattr(stack, family.layers)
    by_layer = _checked(k_by_layer, len(layers), family, type(stack).__name__)
    if not options.setdefault("keep_order", True):
        raise ValueError("expected keep_order to be true between layers, got false; leave it out")
    options = {"protected": family.protected} | options
    poolings = {}
    for index, k in by_layer.items():
        like = next(layers[index].parameters())
        pooling = TopKPooling(encoder.config.hidden_size, k, **options)
        poolings[str(index)] = pooling.to(like.device, like.dtype).train(stack.training)
    stack.pooling = EncoderPooling(poolings)
    handles = stack.pooling.handles
    handles.append(stack.register_forward_pre_hook(begin))
    for index in range(min(by_layer), len(layers)):
        hook = PoolInput(layers[index], index, family)
        handles.append(layers[index].register_forward_pre_hook(hook, with_kwargs=True))
    if encoder is not model:
        handles.append(encoder.register_forward_hook(carry_mask))
        handles.append(model.register_forward_pre_hook(take_mask, with_kwargs=True))
        handles.append(model.get_decoder().register_forward_pre_hook(see_slots, with_kwargs=True))
    handles.append(model.register_forward_hook(tell))


def _pooled_stack(model: nn.Module) -> Any:
    """The module inside that runs the layers and pools between them; None: nothing pools."""
    return next((x for x in model.modules() if isinstance(getattr(x, "pooling", None), EncoderPooling)), None)


def _find(model: Any) -> tuple[Any, Any, Family]:
    """The encoder (of an encoder-decoder, else the model itself), what runs its layers, and of what kind it is."""
    alone = type(model).__name__ in [family.stack for family in FAMILIES.values()]  # BartEncoder
    encoder = model.get_encoder() if model.config.is_encoder_decoder and not alone else model
    kind = encoder.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        raise ValueError(f"cannot pool between the layers of a {kind} model; of these it works: {', '.join(FAMILIES)}")
    stacks = [module for module in encoder.modules() if type(module).__name__ == family.stack]
    if not stacks or getattr(encoder.config, "is_decoder", False):
        raise ValueError(f"expected an encoder of type {kind}, found none in this {type(model).__name__}")
    return encoder, stacks[0], family


def _checked(k_by_layer: Mapping[Any, int | float], layers: int, family: Family, name: str) -> dict[int, int | float]:
    """By rising layer."""
    by_layer = {int(layer): k for layer, k in k_by_layer.items()}
    by_layer = {layer: by_layer[layer] for layer in sorted(by_layer)}
    if not by_layer:
        raise ValueError("expected layers and k such as {2: 64}, got none")
    for layer in by_layer:
        if not 0 <= layer < layers:
            raise ValueError(f"expected layers in {family.first}..{layers - 1} for this {name}, got {layer}")
        if layer < family.first:
            raise ValueError(f"cannot pool the input of layer {layer} of {name}: {family.why}; pool at a later layer")
    counts = [k for k in by_layer.values() if isinstance(k, int)]
    if any(after >= before for before, after in pairwise(counts)):
        raise ValueError(f"expected fewer vectors at later layers, got {by_layer}")
    return by_layer


def _check_head(model: PreTrainedModel) -> None:
    """Refuse heads that read every token, or average under the mask of all tokens."""
    name = type(model).__name__
    if name.endswith(OF_EVERY_TOKEN):
        raise ValueError(f"{name} answers for every token of its input, which pooling leaves out; use another head")
    average = getattr(model.config, "classifier_pooling", None)
    if name.endswith(("ForSequenceClassification", "ForMultipleChoice")) and average in ("mean", "late"):
        raise ValueError(
            f"{name} with classifier_pooling={average!r} averages over all tokens, which pooling leaves out; load it "
            "with classifier_pooling='cls' (ModernBERT) or 'bos' (EuroBERT)"
        )
