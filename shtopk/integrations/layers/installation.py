"""Poolings and their hooks put between the layers of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from shtopk.integrations.layers.between import LayerPoolings, checked_layers, new_poolings, record_of
from shtopk.integrations.layers.families import FAMILIES, Family
from shtopk.integrations.layers.hooks import BeginCall, BeginPass, EndPass, PoolInput, ReportAssignment
from shtopk.integrations.layers.seq2seq import AttendToSlots, CarryMask, TakeMask
from shtopk.options import PoolingOptions

# Models with names that end so answer for each token.
NEEDS_EVERY_TOKEN = ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "ForPreTraining",
                     "ForMaskedImageModeling", "LMHeadModel", "ForCausalLM", "WithLMHead")  # fmt: skip


class EncoderPooling(LayerPoolings):
    """The poolings of an encoder."""

    field = "encoder_pooling"


def install(
    model: Any, k_by_layer: Mapping[Any, int | float], options: PoolingOptions | None = None, **by_name: Any
) -> PoolingOptions:
    """Do what `pool_encoder` does, but leave the configuration alone: for models that describe their pooling in one of
    theirs.

    Returns:
        The options in force, defaults included.
    """
    encoder, stack, family = find(model)
    layers = getattr(stack, family.layers)
    by_layer = checked_layers(k_by_layer, family.first, len(layers), type(stack).__name__, family.why)
    defaults: dict[str, Any] = {"protected": family.protected}
    if encoder is not model:  # a decoder has learnt to read such slots
        defaults["eval_operator"] = by_name.get("operator", PoolingOptions().operator)
    record = record_of(options, by_name, defaults)
    poolings = new_poolings(by_layer, record, layers, encoder.config.hidden_size, stack.training)
    stack.pooling = EncoderPooling(poolings)
    _hook(model, encoder, stack, layers, family)
    return record


def _hook(model: Any, encoder: Any, stack: Any, layers: nn.ModuleList, family: Family) -> None:
    (path,) = [name for name, module in model.named_modules() if module is stack]
    parts = path.split(".") if path else []
    handles = stack.pooling.handles
    inputs = [PoolInput(layers[i], i, family, stack) for i in range(int(min(stack.pooling, key=int)), len(layers))]
    handles.extend(inputs)
    handles.append(stack.register_forward_pre_hook(BeginPass(stack, family, inputs), with_kwargs=True))
    handles.append(stack.register_forward_hook(EndPass(stack), always_call=True))
    if encoder is not model:
        handles.append(encoder.register_forward_hook(CarryMask(stack)))
        handles.append(model.register_forward_pre_hook(TakeMask(model), with_kwargs=True))
        handles.append(model.get_decoder().register_forward_pre_hook(AttendToSlots(stack), with_kwargs=True))
    for inside in range(len(parts) + 1):  # the model, every module on the way, the stack
        outer = model.get_submodule(".".join(parts[:inside]))
        handles.append(outer.register_forward_pre_hook(BeginCall(stack)))
        handles.append(outer.register_forward_hook(ReportAssignment(".".join(parts[inside:])), always_call=True))


def pooled_stack(model: nn.Module) -> Any:
    """The module that runs the layers and pools between them; None if nothing pools."""
    return next((x for x in model.modules() if isinstance(getattr(x, "pooling", None), EncoderPooling)), None)


def find(model: Any) -> tuple[Any, Any, Family]:
    """Find (encoder, stack, family).

    The encoder is the model itself, or that of an encoder-decoder. The stack is the module that runs its layers.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"expected a model of transformers, got {type(model).__name__}")
    is_stack = any(_is_a(model, family.stack) for family in FAMILIES.values())  # BartEncoder, without a decoder
    encoder = model.get_encoder() if model.config.is_encoder_decoder and not is_stack else model
    kind = encoder.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        raise ValueError(
            f"cannot pool between the layers of a model of type {kind}; it works for {', '.join(FAMILIES)}"
        )
    stacks = [module for module in encoder.modules() if _is_a(module, family.stack)]
    if not stacks or getattr(encoder.config, "is_decoder", False):
        raise ValueError(f"expected an encoder of type {kind}, found none in this {type(model).__name__}")
    return encoder, stacks[0], family


def _is_a(module: nn.Module, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(module).__mro__)


def check_head(model: PreTrainedModel) -> None:
    """Refuse heads that read every token, or average under the mask of all tokens."""
    names = [kind.__name__ for kind in type(model).__mro__]
    name = names[0]
    if any(name.endswith(NEEDS_EVERY_TOKEN) for name in names):
        raise ValueError(f"{name} answers for every token of its input, which pooling leaves out; use another head")
    average = getattr(model.config, "classifier_pooling", None)
    may_average = ("ForSequenceClassification", "ForMultipleChoice")
    if any(name.endswith(may_average) for name in names) and average in ("mean", "late"):
        raise ValueError(
            f"{name} with classifier_pooling={average!r} averages over all tokens, which pooling leaves out; load it "
            "with classifier_pooling='cls' (ModernBERT) or 'bos' (EuroBERT)"
        )
