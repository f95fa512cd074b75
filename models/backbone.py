"""The backbone, a bare pretrained model, and how a model that pools is built around it. Reads safetensors only."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, GenerationConfig, PreTrainedConfig
from transformers.utils import logging

from .configuration_topk_pooling import PooledBackboneConfig, check_unpooled
from .inputs import check_masks
from .pretrained import MAIN, one_line

# In names. DeBERTa's rel_embeddings are read in every layer; ESM's emb_layer_norm_after stands behind the last one.
OF_EMBEDDINGS = re.compile(r"(?<!rel_)emb(?!_layer_norm_after)|\bw[tp]e\b")
Dtype = torch.dtype | str  # of weights


class Backbone(NamedTuple):
    """A bare model: its name, its configuration, and its weights."""

    name: str
    config: PreTrainedConfig
    weights: dict[str, Tensor]
    generation_config: GenerationConfig | None = None


def load_encoder(name: str, config: PreTrainedConfig, dtype: Dtype = torch.float32) -> Backbone:
    """Load a bare encoder, whose checkpoint has to be complete."""
    check_masks(config)
    options: dict[str, Any] = encoder_options(config)
    return load_backbone(AutoModel, name, config, dtype, **options)


def load_backbone(
    auto_class: Any,
    name: str,
    config: PreTrainedConfig,
    dtype: Dtype = torch.float32,
    *,
    may_lack: str | None = None,
    **options: Any,
) -> Backbone:
    """Load a bare model whose checkpoint is complete, except for weights whose names match the pattern may_lack.

    It goes through an Auto class, because most encoders of the hub were saved inside a model with a head
    (`bert.embeddings...`). A key_mapping would load them, too, but `save_pretrained` reverses it and writes a
    checkpoint that nothing loads.
    """
    check_unpooled(name, vars(config))
    with one_line_errors(f"cannot load the weights of {name}"):
        model, report = auto_class.from_pretrained(
            name,
            config=config,
            revision=commit_of(config) or MAIN,  # the weights that belong to this configuration
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the sizes in the message
            **options,
        )
        missing = [key for key in sorted(report["missing_keys"]) if not (may_lack and re.search(may_lack, key))]
        if missing:
            raise ValueError(f"they lack {len(missing)} tensors of the model, such as {missing[0]}")
        for key, found, expected in sorted(report["mismatched_keys"]):
            raise ValueError(f"they do not fit config.json: expected {key} {list(expected)}, got {list(found)}")
    weights = {key: tensor for key, tensor in model.state_dict().items() if key not in report["missing_keys"]}
    return Backbone(name, config, weights, model.generation_config if model.can_generate() else None)


def commit_of(config: PreTrainedConfig) -> str | None:
    """The commit on the hub that a configuration was loaded from; None for a folder."""
    return getattr(config, "_commit_hash", None)


def build_around(
    backbone: Backbone,
    model_class: Any,
    fields: dict[str, Any],
    attn_implementation: str | None,
    dtype: Dtype = torch.float32,
) -> Any:
    """Build a model of this package around a backbone. Weights that the backbone lacks are drawn.

    Args:
        fields: of the model's configuration.
        dtype: of all weights.

    Raises:
        ValueError: unknown or impossible fields.
    """
    config_class = model_class.config_class
    unknown = sorted(field for field in fields if not hasattr(config_class, field))
    if unknown:
        raise ValueError(f"unknown fields of {config_class.__name__}: {', '.join(unknown)}")
    try:
        config = config_class(backbone=backbone.config, **fields)
    except StrictDataclassError as error:
        raise ValueError(one_line(error.__cause__)) from error
    weights = {f"backbone.{key}": tensor for key, tensor in backbone.weights.items()}
    with one_line_errors(f"cannot build a model around {backbone.name}"):
        model = model_class.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    model.name_or_path = model.config.name_or_path = backbone.name
    model.backbone_commit = commit_of(backbone.config)
    model.new_parameters = frozenset(key for key, _ in model.named_parameters() if key not in weights)
    if backbone.generation_config is not None:
        model.generation_config = backbone.generation_config
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    return model


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether this is the configuration of an encoder of text."""
    text = hasattr(config, "hidden_size") and hasattr(config, "vocab_size")
    return text and not isinstance(config, PooledBackboneConfig) and not getattr(config, "is_encoder_decoder", False)


def instead_of(config: PreTrainedConfig) -> str:
    """What to do where an encoder was expected and a model with this configuration was given; "" if it is unknown."""
    if isinstance(config, PooledBackboneConfig):
        return ", which shtopk trained; go on with that by --resume latest, or name the model that it was made from"
    if getattr(config, "is_encoder_decoder", False):
        return "; to classify with it, call pool_encoder on its AutoModelForSequenceClassification"
    return ""


def encoder_options(config: PreTrainedConfig) -> dict[str, bool]:
    """Options that leave out the dense layer over [CLS] that some families add: nothing would train it, which DDP
    refuses.
    """
    model_class = AutoModel._model_mapping[type(config)]
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    """Set every dropout of a model's configuration, and of those inside it; None leaves them as they are."""
    if dropout is None:
        return
    for field, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            set_dropout(value, dropout)
        elif ("dropout" in field or field.endswith("pdrop")) and isinstance(value, float):
            setattr(config, field, dropout)


def read_alike(config: PreTrainedConfig) -> None:
    """Let a backbone with this configuration read a document alike, whatever it is batched with and came before.

    BigBird's sparse attention draws by the padded length, and is given up for good once a document is short. So it
    reads with full attention, inside a window.

    Raises:
        ValueError: it cannot.
    """
    parts: list[Any] = [config, getattr(config, "encoder", None)]
    for part in parts:
        check_masks(part)
        if getattr(part, "attention_type", None) == "block_sparse":
            part.attention_type = "original_full"


def freeze_layers(encoder: Any, count: int) -> None:
    """Stop training an encoder's lowest layers, and all that lies below them: its embeddings, of words, positions and
    segments, and their norm.

    Args:
        encoder: an encoder of transformers, or a model around one.
        count: how many layers, from the bottom; 0: nothing is frozen.

    Raises:
        ValueError: the encoder has fewer layers.
    """
    size = encoder.config.num_hidden_layers
    stacks = [(name, m) for name, m in encoder.named_modules() if isinstance(m, nn.ModuleList) and len(m) == size]
    if not stacks or count > size:
        raise ValueError(f"cannot freeze {count} layers of {type(encoder).__name__}: found {size if stacks else 0}")
    if count == 0:
        return
    name = stacks[0][0]
    owner = name.rpartition(".")[0]
    # XLM has the parts of its layers in stacks side by side; DeBERTa's convolution is a part of its lowest layer.
    side_by_side = [stack for other, stack in stacks if other.rpartition(".")[0] == owner]
    lowest = [layer for stack in side_by_side for layer in stack[:count]]
    convolution = getattr(encoder.get_submodule(owner), "conv", None) or nn.Identity()
    for part in (encoder.get_input_embeddings(), *lowest, convolution):
        part.requires_grad_(False)
    for parameter in embeddings_below(encoder, name):
        parameter.requires_grad_(False)


def embeddings_below(model: Any, layers: str) -> list[nn.Parameter]:
    """The parameters of the embeddings that a stack of layers reads.

    Args:
        model: an encoder, or a model around one.
        layers: the name of the stack in it. The encoder is the smallest part around it that has words, too.
    """
    words = next(model.get_input_embeddings().parameters())
    owner: str = layers
    found: list[tuple[str, nn.Parameter]] = []
    while owner and not any(parameter.shape == words.shape for _, parameter in found):
        owner = owner.rpartition(".")[0]
        inside = model.get_submodule(owner).named_parameters(prefix=owner, remove_duplicate=False)
        found = [(name, parameter) for name, parameter in inside if not name.startswith(f"{layers}.")]
    return [parameter for name, parameter in found if OF_EMBEDDINGS.search(name[len(owner) :])]


@contextmanager
def one_line_errors(problem: str) -> Iterator[None]:
    """Inside this context errors are one line that begins with the problem, and transformers reports no missing
    weights, which may be meant to be new.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{problem}: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
