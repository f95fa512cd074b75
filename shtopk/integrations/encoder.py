"""Pool the tokens between the layers of a Hugging Face encoder, so that the layers above get cheaper, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from shtopk.integrations.adapters import let_adapters_forget, let_adapters_train
from shtopk.integrations.layers.families import FAMILIES, Family
from shtopk.integrations.layers.hooks import BeginPass, PoolInput, ReportAssignment, end_pass, enter_model
from shtopk.integrations.layers.seq2seq import TakeMask, attend_to_slots, carry_mask
from shtopk.options import PoolingOptions, as_saved
from shtopk.pooling import TopKPooling

Model = TypeVar("Model", bound=PreTrainedModel)

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")

# Models with names that end so answer for each token.
NEEDS_EVERY_TOKEN = ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "ForPreTraining",
                     "ForMaskedImageModeling", "LMHeadModel", "ForCausalLM", "WithLMHead")  # fmt: skip


class EncoderPooling(nn.ModuleDict):
    """The poolings of an encoder, by the number of the layer whose input they pool."""

    def __init__(self, poolings: Mapping[str, TopKPooling]):
        super().__init__(poolings)
        self.handles: list[Any] = []  # of the hooks


def pool_encoder(
    model: Model, k_by_layer: Mapping[int | str, int | float], options: PoolingOptions | None = None, **by_name: Any
) -> Model:
    """Let an encoder pool its tokens between its layers. The model is changed in place.

    With {2: 64} a new `TopKPooling` pools the input of layer 2 (counted from 0) to 64 vectors. That layer and all
    layers above work on these 64. {2: 256, 4: 64} pools twice. The poolings learn with the model. Masks, rotary
    positions and position biases follow the tokens. All this is done by hooks, so the model's code stays as it is;
    `unpool_encoder` removes them.

    The model's output says what was kept, by two attributes that are not among its keys. `pooled_attention_mask`
    [B, k] bool is needed to average or search `last_hidden_state` [B, k, d]; `assignment` is the `Assignment` of all
    tokens to the k vectors. (`DistributedDataParallel` drops both when it rebuilds the output.) Hidden states above a
    pooling have k vectors.

    A decoder sees the k vectors under their mask, in `generate` too. For that, pass the whole encoder-decoder.

    `save_pretrained` saves the poolings and their description with the model, and `load_pooled` loads both.
    `from_pretrained` of the model's class would leave the poolings out.

    Args:
        model: an encoder that is loaded, alone or with a head or a decoder, of a type in `families.FAMILIES`.
        k_by_layer: {layer: k}, in any order; `TopKPooling` explains k. Fewer than k tokens stay as many as they are.
        options: one record of options for the poolings of all layers.
        by_name: the options by name, instead; `shtopk.PoolingOptions` explains them. By default `protected` is (0, -1)
            if the family has [CLS] and [SEP]; and where a decoder reads the slots, they are pooled in eval mode as in
            training. Slots always stand in document order.

    Returns:
        The model.

    Raises:
        ValueError: a model that cannot be pooled, a head that needs every token, or an impossible k_by_layer.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> bert = BertModel(BertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64)).eval()
        >>> out = pool_encoder(bert, {2: 8})(input_ids=torch.arange(100, 130).unsqueeze(0))
        >>> out.last_hidden_state.shape, out.assignment.positions.shape
        (torch.Size([1, 8, 32]), torch.Size([1, 8]))
    """
    if _pooled_stack(model) is not None:
        raise ValueError(f"this {type(model).__name__} is pooled already; call unpool_encoder first")
    _check_head(model)
    record = install(model, k_by_layer, options, **by_name)
    for config in {id(part.config): part.config for part in (model, _find(model)[0])}.values():
        config.encoder_pooling = {"k_by_layer": {str(layer): k for layer, k in k_by_layer.items()}} | record.to_dict()
    let_adapters_train(model)
    return model


def unpool_encoder(model: Model) -> Model:
    """Undo `pool_encoder`: remove the poolings from a model, in place. It then computes what it did before.

    Args:
        model: one that `pool_encoder` was called on.

    Returns:
        The model.

    Raises:
        ValueError: a model that is not pooled.
    """
    stack = _pooled_stack(model)
    if stack is None:
        raise ValueError(f"expected a model that pool_encoder was called on, got an unpooled {type(model).__name__}")
    for handle in stack.pooling.handles:
        handle.remove()
    del stack.pooling
    for part in (model, _find(model)[0]):
        vars(part.config).pop("encoder_pooling", None)
    let_adapters_forget(model)
    return model


def load_pooled(model_class: Any, name: str, **options: Any) -> Any:
    """Load a pooled model that `save_pretrained` saved, in place of `model_class.from_pretrained(name, **options)`.

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
        config, options = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **options)
        options |= hub
    description = dict(getattr(config, "encoder_pooling", None) or {})
    if "k_by_layer" not in description:
        raise ValueError(f"expected a checkpoint saved after pool_encoder in {name}, its configuration says nothing")
    if "initial_temperature" not in description:  # 0.1.0 left its defaults out
        description = {"initial_temperature": 4.0} | description
    description = as_saved(description)
    if not issubclass(model_class, PreTrainedModel):
        with torch.device("meta"):
            model_class = type(model_class.from_config(config))

    def build(self, config, *args, **kwargs):
        model_class.__init__(self, config, *args, **kwargs)
        _check_head(self)
        install(self, **description)

    pooled: Any = type(model_class.__name__, (model_class,), {"__init__": build, "__module__": model_class.__module__})
    with_report = options.pop("output_loading_info", False)
    model, report = pooled.from_pretrained(name, config=config, output_loading_info=True, **options)
    if lacking := sorted(key for key in report["missing_keys"] if ".pooling." in f".{key}"):
        raise ValueError(f"the weights in {name} lack {lacking[0]}: the model was saved without its poolings")
    model.__class__ = model_class
    let_adapters_train(model)
    return (model, report) if with_report else model


def install(
    model: Any, k_by_layer: Mapping[Any, int | float], options: PoolingOptions | None = None, **by_name: Any
) -> PoolingOptions:
    """Do what `pool_encoder` does, but leave the configuration alone: for models that describe their pooling in one of
    theirs.

    Returns:
        The options in force, defaults included.
    """
    encoder, stack, family = _find(model)
    layers = getattr(stack, family.layers)
    by_layer = _checked(k_by_layer, len(layers), family, type(stack).__name__)
    if encoder is not model and by_name.get("eval_operator") is None:  # a decoder has learnt to read such slots
        by_name["eval_operator"] = by_name.get("operator", PoolingOptions().operator)
    record = options or PoolingOptions.of({"protected": family.protected} | by_name)
    record.to_dict()  # which a scorer of one's own has no place in: nothing could load it
    if not record.keep_order:
        raise ValueError("expected keep_order to be true between layers, got false; leave it out")
    poolings: dict[str, TopKPooling] = {}
    for index, k in by_layer.items():
        like = next(layers[index].parameters())
        pooling = TopKPooling(encoder.config.hidden_size, k, record)
        poolings[str(index)] = pooling.to(like.device, like.dtype).train(stack.training)
    stack.pooling = EncoderPooling(poolings)
    _hook(model, encoder, stack, layers, family)
    return record


def _hook(model: Any, encoder: Any, stack: Any, layers: nn.ModuleList, family: Family) -> None:
    (path,) = [name for name, module in model.named_modules() if module is stack]
    parts = path.split(".") if path else []
    handles = stack.pooling.handles
    inputs = [PoolInput(layers[i], i, family) for i in range(int(min(stack.pooling, key=int)), len(layers))]
    handles.extend(inputs)
    handles.append(stack.register_forward_pre_hook(BeginPass(family, inputs)))
    handles.append(stack.register_forward_hook(end_pass, always_call=True))
    if encoder is not model:
        handles.append(encoder.register_forward_hook(carry_mask))
        handles.append(model.register_forward_pre_hook(TakeMask(model), with_kwargs=True))
        handles.append(model.get_decoder().register_forward_pre_hook(attend_to_slots, with_kwargs=True))
    for inside in range(len(parts) + 1):  # the model, every module on the way, the stack
        outer = model.get_submodule(".".join(parts[:inside]))
        handles.append(outer.register_forward_pre_hook(enter_model))
        handles.append(outer.register_forward_hook(ReportAssignment(".".join(parts[inside:])), always_call=True))


def _pooled_stack(model: nn.Module) -> Any:
    """The module that runs the layers and pools between them; None if nothing pools."""
    return next((x for x in model.modules() if isinstance(getattr(x, "pooling", None), EncoderPooling)), None)


def _find(model: Any) -> tuple[Any, Any, Family]:
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


def _checked(k_by_layer: Mapping[Any, int | float], layers: int, family: Family, name: str) -> dict[int, int | float]:
    """{layer: k}, checked, lowest layer first."""
    good = isinstance(k_by_layer, Mapping) and all(re.fullmatch(r"\d+", str(layer)) for layer in k_by_layer)
    by_layer = {int(layer): k_by_layer[layer] for layer in sorted(k_by_layer, key=int)} if good else {}
    if not by_layer or len(by_layer) < len(k_by_layer):
        raise ValueError(f"expected different layers and their k, such as {{2: 64}}, got {k_by_layer}")
    for layer in by_layer:
        if not family.first <= layer < layers:
            why = f" ({family.why})" if layer < family.first else ""
            raise ValueError(f"expected layers in {family.first}..{layers - 1} for this {name}, got {layer}{why}")
    counts = [k for k in by_layer.values() if isinstance(k, int)]
    if any(after >= before for before, after in pairwise(counts)):
        raise ValueError(f"expected fewer vectors at later layers, got {by_layer}")
    return by_layer


def _check_head(model: PreTrainedModel) -> None:
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
