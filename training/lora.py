"""LoRA: small matrices beside the backbone's linear layers are trained, and these layers are not.

The layers are replaced in place, so a model stays what it is. What is saved to be used has the matrices merged into
the layers: it is an ordinary model, which needs no peft. To go on with training, what is trained is saved apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shtopk.pooling import poolings
from shtopk.training.model_arguments import ModelArguments

MATRIX = ".lora_"  # in the names of LoRA's parameters, and of no others
BASE = ".base_layer."


def add_lora(model: Any, arguments: ModelArguments) -> None:
    """Put LoRA's matrices beside linear layers of a model's backbone, and freeze the rest of it.

    What is new (poolings, a classifier, a copy head, new cross-attention) is trained in full as before. Layers that
    are frozen already get no matrices.

    Raises:
        ValueError: no layer has such a name, or the rank is larger than the layers are.
    """
    from peft import LoraConfig, inject_adapter_in_model  # late: it takes long to import, and few need it
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    layers = linear_layers(model)
    names = sorted({name.rpartition(".")[2] for name in layers})
    backbone = backbone_of(model)
    usual = USUAL.get(backbone.config.model_type, ())
    wanted = arguments.lora_layers or [name for name in usual if name in names]
    chosen = [name for name in layers if not wanted or name.rpartition(".")[2] in wanted]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"expected lora_targets among {', '.join(names) or 'no layers'}, got {', '.join(unknown)}")
    if not chosen:
        raise ValueError("lora_r needs linear layers in the backbone that are trained, but found none")
    largest = max(min(layers[name].weight.shape) for name in chosen)
    rank = arguments.lora_r or 0
    if rank > largest:
        raise ValueError(f"expected lora_r of at most {largest}, the size of the backbone's layers, got {rank}")
    alpha = 2 * rank if arguments.lora_alpha is None else arguments.lora_alpha
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trained &= model.new_parameters | of_poolings(model)
    chosen = [name.removeprefix(f"{model.base_model_prefix}.") for name in chosen]
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=arguments.lora_dropout, target_modules=chosen)
    inject_adapter_in_model(config, backbone)  # in a model of ours an adapter would take what is new as its own
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(MATRIX in name or name in trained)


def backbone_of(model: Any) -> Any:
    """The bare model inside: of ours the backbone, of a language model all but the layer that gives its output."""
    return getattr(model, model.base_model_prefix)


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """{name: layer} of the linear layers in the backbone that were loaded and are trained, its output layer aside."""
    out, new = model.get_output_embeddings(), model.new_parameters | of_poolings(model)
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(f"{model.base_model_prefix}.")
        if layer.weight.requires_grad and layer is not out and f"{name}.weight" not in new
    }


def of_poolings(model: nn.Module) -> frozenset[str]:
    """The names of the parameters of all poolings inside a model."""
    found = {id(parameter) for pooling in poolings(model) for parameter in pooling.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in found)


def has_lora(model: nn.Module) -> bool:
    """Whether a model has LoRA's matrices."""
    return any(MATRIX in name for name, _ in model.named_parameters())


def merged(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model with LoRA's matrices as those of the model without, into which they are merged.

    Args:
        model: its layers say how each pair of matrices is scaled.
        weights: its state dict, gathered; left as it is.
    """
    found = {name.replace(BASE, "."): weight for name, weight in weights.items() if MATRIX not in name}
    for name, layer in model.named_modules():
        for adapter, scale in getattr(layer, "scaling", {}).items() if hasattr(layer, "lora_A") else ():
            a, b = (weights[f"{name}{MATRIX}{one}.{adapter}.weight"] for one in "AB")
            weight = found[f"{name}.weight"]
            found[f"{name}.weight"] = (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)
    return found


def trained_apart(model: Any) -> frozenset[str]:
    """The names of the parameters that a checkpoint holds besides the merged model: LoRA's, and all that is new."""
    names = frozenset(name for name, _ in model.named_parameters())
    return frozenset(name for name in names if MATRIX in name) | model.new_parameters & names | of_poolings(model)
