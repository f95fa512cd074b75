"""Which model to train, as fields of a command line."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from shtopk.options import NAMES, PoolingOptions, fill_in, like_options

MOST_KEPT = 2**20  # vectors: more than any text has tokens
GENERATION = ("num_beams", "no_repeat_ngram_size", "min_new_tokens", "length_penalty")
TEMPERATURES = ("temperature", "initial_temperature")
OF_SUMMARIES = ("decoder", "copy_head", "source_lang", "target_lang", "generation", *GENERATION)
LENGTH = "max_summary_tokens, of completions max_completion_tokens"
SET_ELSEWHERE = {"max_new_tokens": LENGTH, "max_length": LENGTH}
OUTPUTS = ("num_return_sequences", "return_dict_in_generate", "output_scores", "output_logits", "output_attentions",
           "output_hidden_states")  # fmt: skip


def _option(default, help: str):
    return field(default=default, metadata={"help": help})


OptionArguments: Any = like_options(
    "OptionArguments",
    {"temperature": float | None, "initial_temperature": float | None, "scorer": str, "protected": list[int]},
)


@dataclass
class ModelArguments(OptionArguments):
    """Which model is trained.

    The fields of `shtopk.PoolingOptions` are fields here, too.
    """

    _argument_group_name: ClassVar[str] = "model"
    backbone: str | None = _option(
        None,
        "folder or hub name of an encoder, for summaries perhaps of an encoder-decoder such as BART or T5, and for "
        "completions of a causal language model such as Llama; by default MiniLM from its pip package",
    )
    backbone_revision: str | None = _option(
        None, "branch, tag or commit of a backbone on the hub; by default its newest, and run.json says which it was"
    )
    backbone_sha256: str | None = _option(None, "expected SHA-256 of the backbone's model.safetensors (hex)")
    backbone_dropout: float | None = _option(None, "dropout inside the backbone, in [0, 1); by default its own")
    attn_implementation: str | None = _option(
        None, "how the backbone computes attention: sdpa, eager, flash_attention_2, ...; by default its own way"
    )
    decoder: str | None = _option(None, "folder or hub name of a language model to join to an encoder (summaries)")
    decoder_layers: int = _option(2, "layers of the decoder that is made from the encoder's, if none is given")
    copy_head: bool = _option(False, "let the decoder copy tokens through the vectors kept (summaries)")
    num_beams: int | None = _option(None, "beams when texts are generated, >= 1; by default as the backbone says")
    no_repeat_ngram_size: int | None = _option(
        None, "allow no sequence of so many tokens twice; by default as the backbone"
    )
    min_new_tokens: int | None = _option(
        None, "tokens that a text has at least, >= 0; by default as the backbone says"
    )
    length_penalty: float | None = _option(None, "with beams, > 0 favours long summaries, < 0 short ones")
    generation: str | None = _option(
        None,
        "further fields of transformers' GenerationConfig, as a mapping: {repetition_penalty: 1.2} (summaries and "
        "completions, which by default are the likeliest tokens)",
    )
    source_prefix: str = _option(
        "", "text to put before every document, and in front of every window, such as 'summarize: ' for T5"
    )
    source_lang: str | None = _option(
        None, "language of the documents, as the tokenizer writes it: en_XX (mBART), en (M2M), eng_Latn (NLLB)"
    )
    target_lang: str | None = _option(None, "language to write in; by default that of the documents")
    k: str = _option("32", "vectors to keep: a count >= 1, or a share of each document's tokens such as 0.1")
    window: int | None = _option(None, "tokens that the encoder sees at once; by default as many as it has positions")
    windows_at_once: int = _option(
        32, "windows per call of the encoder, >= 1; bounds the memory; under FSDP2 all go at once"
    )
    window_k: int | None = _option(
        None, "pool in two steps: each window to so many vectors, then these to k; by default in one"
    )
    k_by_layer: str | None = _option(
        None,
        "pool between the encoder's layers as well: 2:256,4:64 pools the input of layer 2 to 256, of 4 to 64; for "
        "completions the one place to pool a prompt",
    )
    keep_last: int = _option(1, "tokens at the end of a prompt that are kept whole, >= 1 (completions)")
    classifier_dropout: float = _option(0.1, "dropout before the classifier, in [0, 1)")
    freeze_encoder: bool = _option(
        False, "do not train the encoder, nor embeddings that it shares with a decoder; nor a language model"
    )
    freeze_layers: int = _option(0, "do not train so many of the lowest layers of the encoder, nor its embeddings")
    freeze_scorer: bool = _option(False, "do not train the scorer, a control")
    lora_r: int | None = _option(
        None, "LoRA: train matrices of this rank beside the backbone's layers, and not these; needs the package peft"
    )
    lora_alpha: int | None = _option(None, "LoRA's scale is lora_alpha / lora_r; by default 2")
    lora_dropout: float = _option(0.0, "dropout before LoRA's matrices, in [0, 1)")
    lora_targets: str | None = _option(
        None,
        "names of the layers that get LoRA's matrices, with commas between: query,value; by default those that peft "
        "names for the backbone's kind, or every linear one",
    )

    def __post_init__(self):
        options: Any = self
        given = options.eval_operator
        fill_in(options)
        options.eval_operator = given  # its default is the model's: for a decoder another than for a classifier

    @property
    def share_or_count(self) -> int | float:
        """k as a number. Raises ValueError if it is none, or more than any text has tokens."""
        return share_or_count(self.k, "k")

    @property
    def shares_or_counts(self) -> dict[str, int | float] | None:
        """k_by_layer as {layer: k}; None for none. Raises ValueError if it cannot be read."""
        if self.k_by_layer in (None, "none"):
            return None
        pairs = [re.fullmatch(r"\s*([0-9]{1,9}):([0-9.]{1,9})", pair) for pair in self.k_by_layer.split(",")]
        if not all(pairs):
            raise ValueError(
                "expected k_by_layer to be like 2:256,4:64 (layer:k; in quotes in YAML) or none, "
                f"got {self.k_by_layer!r}"
            )
        found = {str(int(pair[1])): pair[2] for pair in pairs if pair}
        if len(found) < len(pairs):
            raise ValueError(f"expected k_by_layer to name each layer once, got {self.k_by_layer!r}; leave one k each")
        return {layer: share_or_count(k, f"k of layer {layer} in k_by_layer") for layer, k in found.items()}

    @property
    def lora_layers(self) -> list[str]:
        """The names in `lora_targets`, as a list; empty for none."""
        return [name.strip() for name in (self.lora_targets or "").split(",") if name.strip()]

    @property
    def generation_options(self) -> dict[str, Any]:
        """All that is set of how summaries are generated: the fields named above, and those in `generation`."""
        named = {name: getattr(self, name) for name in GENERATION if getattr(self, name) is not None}
        return named | fields_of_generation(self.generation, named)

    @property
    def pooling_options(self) -> PoolingOptions:
        """The options of the pooling. Raises ValueError if they are impossible."""
        return PoolingOptions(**{name: getattr(self, name) for name in NAMES})


def without_own_temperatures(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a model without the temperatures that its operator brings itself, so that another one brings its own.

    Example:
        >>> fields = vars(ModelArguments(operator="successive_halving_relative", initial_temperature=4.0))
        >>> fields["temperature"], "temperature" in without_own_temperatures(fields)
        (0.0625, False)
    """
    for left_out in (TEMPERATURES, TEMPERATURES[:1]):
        asked = {name: fields[name] for name in TEMPERATURES if name not in left_out}
        own = ModelArguments(operator=fields["operator"], **asked)
        if all(getattr(own, name) == fields[name] for name in TEMPERATURES):
            return {name: value for name, value in fields.items() if name not in left_out}
    return dict(fields)


def fields_of_generation(text: str | None, taken: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of fields of GenerationConfig from YAML or JSON; None: no fields.

    Args:
        taken: fields that are set already.

    Raises:
        ValueError: it is no mapping, or has an unknown field, one of the wrong type, one that is set elsewhere, or
            one that changes what is generated for a document.
    """
    if text is None:
        return {}
    try:
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(
            f"expected generation to be a mapping such as {{top_p: 0.9, do_sample: true}}, got {text!r:.60}"
        )
    from transformers import GenerationConfig  # late: it takes long to import

    known = {name for name in vars(GenerationConfig()) if not name.startswith(("_", "transformers_"))}
    usual = GenerationConfig._get_default_generation_params()
    for name, value in fields.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"expected fields of GenerationConfig in generation, got {name!r}{meant}")
        if elsewhere := name if name in taken else SET_ELSEWHERE.get(name):
            raise ValueError(f"{name} in generation is set by the field {elsewhere}; leave it out of generation")
        if name in OUTPUTS:
            raise ValueError(f"{name} in generation changes what is returned for a document; leave it out")
        kind = type(usual.get(name))
        types = {bool: bool | str, int: int, float: int | float}.get(kind)
        if types and (not isinstance(value, types) or (isinstance(value, bool) and kind is not bool)):
            raise ValueError(f"expected {name} in generation to be of type {kind.__name__}, got {value!r:.40}")
    try:
        GenerationConfig(**{name: value for name, value in fields.items() if isinstance(value, dict)})
    except TypeError as error:
        raise ValueError(
            f"expected fields that transformers knows in the mappings of generation, got {error}"
        ) from None
    return fields


def share_or_count(text: str, name: str) -> int | float:
    """A k as a number.

    Raises:
        ValueError: it is none, or more than any text has tokens; the message calls it by `name`.
    """
    for kind in (int, float):
        try:
            k = kind(text)
        except ValueError:
            continue
        if k > MOST_KEPT:
            raise ValueError(f"expected {name} <= {MOST_KEPT:,}, got {text}")
        return k
    raise ValueError(f"expected {name} to be a whole number >= 1 or a share in (0, 1], got {text!r}")
