"""Load any classifier, summarizer or language model from a folder, with its tokenizer, to evaluate it or to let it
answer.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils import logging

from shtopk.integrations.saved import KINDS, load_pooled
from shtopk.options import NAMES, OF_OPERATOR

from .language_model import completes, let_complete, most_prompt_tokens
from .modeling_topk_pooling import TopKPoolingForSequenceClassification
from .modeling_topk_pooling_seq2seq import TopKPoolingForConditionalGeneration
from .windows import positions_of

OURS = {
    model_class.config_class.model_type: model_class
    for model_class in (TopKPoolingForSequenceClassification, TopKPoolingForConditionalGeneration)
}
HEADS = {"ForSequenceClassification": AutoModelForSequenceClassification,
         "ForConditionalGeneration": AutoModelForSeq2SeqLM, "ForCausalLM": AutoModelForCausalLM,
         "LMHeadModel": AutoModelForCausalLM}  # fmt: skip
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MERGE = "put it on the model that it was trained on, and save what merge_and_unload() makes of both"
UNPOOLED = {"k": 1.0, "k_by_layer": None, "window_k": None}
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")


class OptionError(ValueError):
    """Options that a model's pooling cannot have."""


class KindError(ValueError):
    """A checkpoint of a model that gives no answers to documents or prompts."""


def load_checkpoint(checkpoint: str | Path, *, unpooled: bool = False, **pooling: Any):
    """Load a classifier, a summarizer or a causal language model: (model in eval mode, fast tokenizer).

    It may come from `shtopk train`, from transformers' `Trainer`, or from `pool_encoder` or `pool_decoder` and
    `save_pretrained`. It may be a PEFT adapter over one of these, or a model that pools nothing. Only safetensors are
    read. Code that a checkpoint carries is not run: our models use that of `shtopk.models`.

    Args:
        checkpoint: a folder. An adapter names the folder, or the model on the hub, that it belongs to: it has to be
            the model that it was trained on, not the backbone of that.
        unpooled: True: keep every token; without options of the pooling beside it.
        pooling: `k` and fields of `shtopk.PoolingOptions` that are to differ from those in the checkpoint. If a model
            pools between its layers only, and once, `k` is that of this pooling.

    Raises:
        ValueError: in one line: no checkpoint, a damaged or incomplete one, a model of another kind, no tokenizer, or
            options that the model cannot have, or any of them beside unpooled.

    Example:
        >>> model, tokenizer = load_checkpoint("runs/bbc", k=8)  # doctest: +SKIP
    """
    if unpooled and pooling:
        given = ", ".join(pooling)
        raise OptionError(f"expected unpooled=True or options of the pooling, got both; leave out {given}")
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise ValueError(
            f"expected a folder with a checkpoint, found {'a file' if folder.exists() else 'none'}: {folder}"
        )
    if not (folder / "config.json").is_file() and not (folder / ADAPTER).is_file():
        raise ValueError(f"expected a checkpoint with a config.json in {folder}, found none")
    try:
        with quiet():
            model = _load_model(folder, UNPOOLED if unpooled else pooling)
            tokenizer = _load_tokenizer(folder, model)
            if completes(model):
                let_complete(model, tokenizer)
    except OptionError:
        raise
    except Exception as error:  # a damaged file can fail in any layer below
        raise ValueError(f"cannot load the checkpoint {folder}: {_reason(error)}") from error
    return model.eval(), tokenizer


def most_tokens(model: Any) -> int | None:
    """How many tokens of a document a model can read, special ones included; of a prompt so that a completion has room
    behind it. None: any number, as for ours.
    """
    if completes(model):
        return most_prompt_tokens(model)
    return None if model.config.model_type in OURS else positions_of(model.config)


def _load_model(folder: Path, pooling: dict[str, Any]):
    if (folder / ADAPTER).is_file():
        return _load_adapter(folder, pooling)
    config = with_pooling(AutoConfig.from_pretrained(folder, trust_remote_code=False), pooling)
    if description_of(config) and config.model_type not in OURS:
        return load_pooled(_auto_class(config), str(folder), config=config, use_safetensors=True)
    model_class = OURS.get(config.model_type) or _auto_class(config)
    model, report = model_class.from_pretrained(folder, config=config, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(f"the weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
    return model


def _load_adapter(folder: Path, pooling: dict[str, Any]):
    """Load the model that a PEFT adapter belongs to, and put the adapter on."""
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError("it is an adapter of PEFT; run pip install peft") from None
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ValueError(f"expected the adapter's weights in {ADAPTER_WEIGHTS}, found none")
    name = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if not name:
        raise ValueError(f"{ADAPTER} does not name the model that it belongs to, base_model_name_or_path")
    try:
        base = _load_model(Path(name), pooling)
    except KindError as error:
        raise ValueError(f"it is an adapter of {name}, which answers nothing: {MERGE}") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # refused below
        model = PeftModel.from_pretrained(base, folder)
    _check_adapter(model, folder, name, unpooled=pooling is UNPOOLED)
    return model


def _check_adapter(model: Any, folder: Path, name: str, *, unpooled: bool) -> None:
    """Raise ValueError for an adapter that was trained on another model: PEFT leaves out what finds no place.

    Args:
        model: with the adapter.
        folder: of the adapter.
        name: of the model that it belongs to.
        unpooled: the model was loaded without poolings between its layers, whose scorers the adapter may have.
    """
    from peft import get_peft_model_state_dict

    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        found = set(weights.keys())
    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    homeless, lacking = (
        sorted(key for key in keys if not (unpooled and ".scorer." in key))
        for keys in (found - expected - set(model.state_dict()), expected - found)
    )
    if homeless or lacking:
        strange = f"no place for {homeless[0]}" if homeless else f"no {lacking[0]}"
        raise ValueError(f"the adapter was trained on another model than {name}, which it names; {MERGE} ({strange})")


def with_pooling(config: PreTrainedConfig, pooling: dict[str, Any]) -> PreTrainedConfig:
    """Change the options of the pooling in a configuration.

    Raises:
        ValueError: it has no pooling, or several poolings and only one k is given.
    """
    if not pooling:
        return config
    if pooling is UNPOOLED and config.model_type not in OURS:
        for name in KINDS:
            vars(config).pop(name, None)  # then the weights of its poolings are left out
        return config
    if config.model_type in OURS:
        if unknown := [name for name in pooling if not hasattr(config, name)]:
            known = ", ".join(("k", *NAMES))
            raise OptionError(f"expected options of the pooling ({known}), got {', '.join(unknown)}")
        return type(config).from_dict(config.to_dict(), **pooling)
    described = description_of(config)
    if described is None:
        raise OptionError(f"a model of type {config.model_type} without a pooling has no {', '.join(pooling)}")
    pooling, description = dict(pooling), dict(getattr(config, described))
    if "k" in pooling:
        layers = list(description["k_by_layer"])
        if len(layers) > 1:
            raise OptionError(f"expected one pooling to give a k to, got {len(layers)}, at layers {', '.join(layers)}")
        description["k_by_layer"] = {layers[0]: pooling.pop("k")}
    if pooling.get("operator", description.get("operator")) != description.get("operator"):
        description |= OF_OPERATOR
    setattr(config, described, description | pooling)
    return config


def description_of(config: PreTrainedConfig) -> str | None:
    """The field of a configuration that describes poolings between layers; None: there is none."""
    return next((name for name in KINDS if getattr(config, name, None)), None)


def _auto_class(config: PreTrainedConfig) -> Any:
    """The Auto class for a model that is not from this package."""
    (name, *_) = config.architectures or ["no architecture"]
    found = next((auto for end, auto in HEADS.items() if name.endswith(end)), None)
    if found is None:
        raise KindError(
            f"expected a classifier of documents, a summarizer or a language model ({', '.join(HEADS)}), got {name}"
        )
    return found


def _load_tokenizer(folder: Path, model: Any):
    # Without files AutoTokenizer makes one up from the model type that knows no word.
    if not any(any(folder.glob(files)) for files in TOKENIZER_FILES):
        raise ValueError("expected a tokenizer beside the model, found none; save it there with save_pretrained")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    words, vectors = len(tokenizer), model.get_input_embeddings().weight.shape[0]
    if words > vectors:
        raise ValueError(f"expected a tokenizer of at most {vectors} words, got one of {words}")
    if tokenizer.pad_token_id is None and completes(model):
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ValueError("expected a tokenizer with a padding token, got none; set its pad_token and save it")
    return tokenizer


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        return "the model needs code that lies in the checkpoint, which is never run"
    if "ignore_mismatched_sizes" in reason:
        return "the weights have other shapes than config.json says"
    if isinstance(error, SafetensorError):
        return f"a file of weights is damaged or cut off ({reason[:100]}); copy it again"
    return reason[:300] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Inside this context transformers shows no progress bars and reports; errors are raised as usual."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
