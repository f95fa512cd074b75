"""The model that a run trains, and how fast each part of it learns."""

import torch
from datasets import DatasetDict

from shtopk import TopKPooling
from shtopk.models import ModelArguments, freeze_layers, load_pretrained_classifier, load_pretrained_seq2seq
from shtopk.tasks import DataArguments, Task
from shtopk.training.arguments import TrainArguments


def build_model(task: Task, texts: DatasetDict, data: DataArguments, arguments: ModelArguments):
    """The model that gives the task's answers."""
    fields = {name: getattr(arguments, name) for name in ("window", "windows_at_once", "window_k")}
    fields |= arguments.pooling() | {
        "k_by_layer": arguments.layers_and_counts,
        "sha256": arguments.backbone_sha256,
        "backbone_dropout": arguments.backbone_dropout,
    }
    if task.target == "label":
        labels = texts["train"].features["label"].names
        model = load_pretrained_classifier(
            arguments.backbone,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            classifier_dropout=arguments.classifier_dropout,
            **fields,
        )
    else:
        model = load_pretrained_seq2seq(
            arguments.backbone,
            decoder=arguments.decoder,
            decoder_layers=arguments.decoder_layers,
            copy_head=arguments.copy_head,
            **fields,
        )
        model.set_generation(
            max_new_tokens=data.max_summary_tokens,
            num_beams=arguments.num_beams,
            no_repeat_ngram_size=arguments.no_repeat_ngram_size,
            min_new_tokens=arguments.min_new_tokens,
            length_penalty=arguments.length_penalty,
        )
    if arguments.attn_implementation is not None:
        model.set_attn_implementation(arguments.attn_implementation)
    # Only ever switched off: some backbones keep parts, such as sinusoidal positions, fixed themselves.
    if arguments.freeze_encoder:
        model.encoder.requires_grad_(False)
        for pooling in poolings(model):
            pooling.requires_grad_(True)
    if arguments.freeze_layers:
        freeze_layers(model.encoder, arguments.freeze_layers)
    if arguments.freeze_scorer or arguments.operator == "hard":  # which gives the scorer no gradient
        for pooling in poolings(model):
            pooling.requires_grad_(False)
    return model


def poolings(model) -> list[TopKPooling]:
    """The one over the encoder's vectors, and those between its layers."""
    return [module for module in model.modules() if isinstance(module, TopKPooling)]


def parameter_groups(model, train: TrainArguments) -> list[dict]:
    """Encoder, decoder, what is new, and the scorer, each with its learning rate; empty groups left out."""
    rates = {
        "encoder": train.learning_rate,
        "decoder": train.decoder_learning_rate or train.learning_rate,
        "new": train.head_learning_rate,
        "scorer": train.scorer_learning_rate,
    }
    groups = {part: {"params": [], "lr": rate} for part, rate in rates.items()}
    groups["scorer"]["weight_decay"] = 0.0
    encoder = set(model.encoder.parameters())
    scorers = {parameter for pooling in poolings(model) for parameter in pooling.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = "new" if name in model.fresh else "encoder" if parameter in encoder else "decoder"
            groups["scorer" if parameter in scorers else new]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def build_optimizer(model, train: TrainArguments) -> torch.optim.Optimizer:
    """AdamW in one pass over the weights; one operation after the other takes several times as long on a CPU."""
    return torch.optim.AdamW(parameter_groups(model, train), weight_decay=train.weight_decay, fused=True)
