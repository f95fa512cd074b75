"""Build the model that a run trains, and the optimizer with a learning rate for each part of it."""

from typing import Any

import torch
from datasets import DatasetDict

from shtopk.models import freeze_layers
from shtopk.models.language_model import completes
from shtopk.operators import OPERATORS
from shtopk.pooling import poolings
from shtopk.training.arguments import Arguments, TrainArguments
from shtopk.training.kinds import Kind
from shtopk.training.lora import MATRIX, add_lora, backbone_of


def build_model(kind: Kind, all_arguments: Arguments, texts: DatasetDict):
    """Build a model of this kind around its backbone, for the classes in these splits; freeze what is to be frozen."""
    arguments = all_arguments.model
    fields = {name: getattr(arguments, name) for name in ("window", "windows_at_once", "window_k")}
    fields |= arguments.pooling_options.to_dict() | {
        "eval_operator": arguments.eval_operator,
        "k": arguments.share_or_count,
        "k_by_layer": arguments.shares_or_counts,
        "source_prefix": arguments.source_prefix,
        "backbone_revision": arguments.backbone_revision,
        "backbone_sha256": arguments.backbone_sha256,
        "backbone_dropout": arguments.backbone_dropout,
        "attn_implementation": arguments.attn_implementation,
    }
    model = kind.from_backbone(all_arguments, texts, fields)
    kind.set_loss(model, all_arguments, texts)
    # requires_grad is only ever switched off: some backbones fix parts themselves, such as sinusoidal positions.
    if arguments.freeze_encoder:
        reader_of(model).requires_grad_(False)
        for pooling in poolings(model):
            pooling.requires_grad_(True)
    if arguments.freeze_layers:
        freeze_layers(reader_of(model), arguments.freeze_layers)
    if arguments.freeze_scorer or not OPERATORS[arguments.operator].teaches:
        for pooling in poolings(model):
            pooling.requires_grad_(False)
    if arguments.lora_r is not None:
        add_lora(model, arguments)
    if all_arguments.training.gradient_checkpointing:
        checkpoint_layers(model)
    return model


def reader_of(model: Any) -> Any:
    """The part of a model that reads documents: its encoder, or a language model as a whole."""
    return model if completes(model) else model.encoder


def checkpoint_layers(model) -> None:
    """Let the layers of a model's backbone keep no activations, and compute them again for the gradients.

    Raises:
        ValueError: none of them can.
    """
    if not any(hasattr(module, "gradient_checkpointing") for module in model.modules()):
        raise ValueError(f"{type(backbone_of(model)).__name__} has no gradient_checkpointing; leave it out")
    model.gradient_checkpointing_enable({"use_reentrant": False})


def trained_parts(model) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters that are trained, by the part of the model: encoder, decoder, lora, new ones and scorer. A
    language model is a decoder.
    """
    parts: dict[str, list[torch.nn.Parameter]] = {name: [] for name in ("encoder", "decoder", "lora", "new", "scorer")}
    encoder = set() if completes(model) else set(model.encoder.parameters())
    scorers = {parameter for pooling in poolings(model) for parameter in pooling.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            loaded = "encoder" if parameter in encoder else "decoder"
            part = "new" if name in model.new_parameters else "lora" if MATRIX in name else loaded
            parts["scorer" if parameter in scorers else part].append(parameter)
    return parts


def parameter_groups(model, train: TrainArguments) -> list[dict]:
    """The parameters in groups with learning rates of their own (see `trained_parts`). Empty groups are left out."""
    rates = {
        "encoder": train.learning_rate,
        "decoder": train.decoder_learning_rate or train.learning_rate,
        "lora": train.lora_learning_rate,
        "new": train.head_learning_rate,
        "scorer": train.scorer_learning_rate,
    }
    groups: dict[str, dict[str, Any]] = {
        part: {"params": parameters, "lr": rates[part]} for part, parameters in trained_parts(model).items()
    }
    groups["scorer"]["weight_decay"] = 0.0
    return [group for group in groups.values() if group["params"]]


def build_optimizer(model, train: TrainArguments) -> torch.optim.Optimizer:
    """AdamW in one fused pass over the weights; on a CPU, separate passes take several times as long."""
    return torch.optim.AdamW(parameter_groups(model, train), weight_decay=train.weight_decay, fused=True)
