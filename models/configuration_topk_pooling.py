"""The configurations of the models that pool their tokens to k."""

# No `from __future__ import annotations` here: `strict` checks no type that is written as a string.
import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from shtopk.options import NAMES, OF_OPERATOR, PoolingOptions, as_saved, fill_in, like_options, without_boost

DEFAULT_OPERATOR = PoolingOptions().operator
FIELDS = (*NAMES, "k", "window", "windows_at_once", "window_k", "k_by_layer")
OF_BACKBONE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "pad_token_id")
POOLED = ("encoder_pooling", "decoder_pooling")  # what pool_encoder and pool_decoder write into a configuration
OptionFields: Any = like_options("OptionFields", {"scorer": str})


@strict
class PooledBackboneConfig(OptionFields, PreTrainedConfig):
    """What all models here share: a backbone, and a `shtopk.TopKPooling` over the token vectors of its encoder.

    `TopKPoolingConfig` explains the fields. What libraries ask every configuration (hidden_size, num_hidden_layers,
    num_attention_heads, vocab_size, pad_token_id) is that of the backbone, in an encoder-decoder of its encoder. It
    can be set, too, and is saved with the backbone alone.
    """

    backbone: PreTrainedConfig | dict | None = None
    k: int | float = 32
    window: int | None = None
    windows_at_once: int = 32
    window_k: int | None = None
    k_by_layer: dict[str, int | float] | dict[int, int | float] | None = None
    source_prefix: str = ""

    def __post_init__(self, **kwargs):
        options: Any = self
        if "boost" in kwargs:  # saved by 0.1.0
            options.operator = without_boost({"operator": options.operator, "boost": kwargs.pop("boost")})["operator"]
        options.protected = list(options.protected)
        if self.is_encoder_decoder and options.eval_operator is None:
            options.eval_operator = options.operator  # a decoder has learnt to read slots that are made so
        fill_in(self)  # so that a checkpoint stays what it is, whatever becomes of the defaults
        self.k_by_layer = {str(layer): k for layer, k in self.k_by_layer.items()} if self.k_by_layer else None
        super().__post_init__(**kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers. What another model saved is the configuration of the backbone."""
        found, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        ours = found.get("model_type", cls.model_type) == cls.model_type
        check_unpooled(str(pretrained_model_name_or_path), found)
        return (found if ours else {"backbone": found}), kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in transformers. Fields that are given replace those of the dictionary before anything is checked.

        Temperatures and eval_operator belong to the operator: another one brings its own, unless they are given as
        well. A checkpoint from before there was an eval_operator pools as it was trained.
        """
        given = {name: kwargs.pop(name) for name in FIELDS if name in kwargs}
        config_dict = as_saved(config_dict) if "transformers_version" in config_dict else config_dict
        config_dict = {name: value for name, value in config_dict.items() if name not in OF_BACKBONE}
        saved = config_dict.get("operator", DEFAULT_OPERATOR)  # left out where it is the default
        if given.get("operator", saved) != saved:
            given = OF_OPERATOR | given
        return super().from_dict(config_dict | given, **kwargs)

    @property
    def pooling_options(self) -> PoolingOptions:
        """The options of the `TopKPooling` over the encoder's vectors."""
        return PoolingOptions(**{name: getattr(self, name) for name in NAMES})

    @property
    def between_options(self) -> dict:
        """The options of the poolings between the encoder's layers, by name.

        Protected tokens and order are not among them; they follow from the encoder's family. [CLS] and [SEP] stay,
        even where the head reads neither, because the layers above have learnt to attend to them.
        """
        return {name: getattr(self, name) for name in NAMES if name not in ("protected", "keep_order")}

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, with what the backbone hands on, which libraries look for in the dictionary, too."""
        return super().to_dict() | {name: getattr(self, name) for name in OF_BACKBONE if hasattr(self, name)}

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: as in transformers."""
        return {name: value for name, value in super().to_diff_dict().items() if name not in OF_BACKBONE}

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        backbone: Any = self.backbone
        return backbone.get_text_config(decoder=decoder, encoder=encoder)

    def validate_pooling(self):
        self.pooling_options.check(self.k)
        for k in (self.k_by_layer or {}).values():
            PoolingOptions(**self.between_options).check(k)

    def validate_windows(self):
        if self.window is not None and self.window < 2:
            raise ValueError(f"expected window >= 2 tokens, got {self.window}")
        if self.windows_at_once < 1:
            raise ValueError(f"expected windows_at_once >= 1, got {self.windows_at_once}")
        if self.window_k is not None and self.window_k < 1:
            raise ValueError(f"expected window_k >= 1, got {self.window_k}")
        if self.window_k is not None or self.k_by_layer is not None:
            check_two_steps(self.protected)


def _of_backbone(name: str) -> property:
    def owner(config: Any) -> Any:
        backbone = config.backbone
        return backbone if hasattr(backbone, name) else getattr(backbone, "encoder", backbone)

    return property(
        lambda config: getattr(owner(config), name),
        lambda config, value: setattr(owner(config), name, value),
        doc=f"The backbone's {name}.",
    )


for _name in OF_BACKBONE:
    setattr(PooledBackboneConfig, _name, _of_backbone(_name))


@strict
class TopKPoolingConfig(PooledBackboneConfig):
    """The configuration of an encoder, a `shtopk.TopKPooling` over its token vectors, and a classifier over the k
    vectors.

    Attributes:
        backbone: configuration of the encoder, of any that AutoModel builds (BERT by default).
        k: slots, as in `shtopk.TopKPooling`. The fields of `shtopk.PoolingOptions` (operator, temperature,
            initial_temperature, eval_operator, scorer, keep_order, protected) are fields here, too; the scorer is one
            with a name.
        window: tokens that the encoder sees at once, >= 2; longer documents are read in several windows. None: as many
            as the encoder has positions or was trained on (T5's n_positions); if neither is known, the whole document.
        windows_at_once: windows per call of the encoder, >= 1; bounds the memory.
        window_k: pool in two steps, each window to window_k vectors, and those of a document to k. None: in one step.
        k_by_layer: pool between the layers of the encoder as well: {"2": 64} pools the input of layer 2 (counted from
            0) to 64 vectors, in every window; see `shtopk.integrations.encoder.pool_encoder`. None: not between
            layers.
        source_prefix: what the model was taught to read before every document, such as "summarize: ". The commands
            and `shtopk.models.predict` put it there, in front of every window; `forward` does not.
        classifier_dropout: dropout before the classifier, in [0, 1).
        label_thresholds: of a multi-label classifier, in the order of the labels: the probability in (0, 1) from which
            on a label is part of the answer; see `shtopk.models.answers`. None: 0.5 for all.
        target_mean: of a regression, where the classifier's output 0 stands on the scale of the answers.
        target_std: > 0, how far an output of 1 is from there: with the mean and standard deviation of the training
            documents' numbers, the classifier learns as well for prices as for shares.

    Raises:
        StrictDataclassError: a wrong type, a value that `TopKPooling` refuses, or one outside its range.

    Example:
        >>> config = TopKPoolingConfig(k=16, num_labels=5)
        >>> config.backbone.model_type
        'bert'
    """

    model_type = "topk_pooling"
    sub_configs_defaults = {"backbone": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    # What Trainer.predict leaves out: it is for whoever wants to look, and of sizes that differ between batches.
    keys_to_ignore_at_inference = [
        *("pooled_hidden_states", "pooled_attention_mask", "pooled_scores", "positions", "weights", "slots"),
        *("hidden_states", "attentions"),
    ]

    classifier_dropout: float = 0.1
    label_thresholds: list[float] | None = None
    target_mean: float = 0.0
    target_std: float = 1.0

    def validate_answers(self):
        thresholds = self.label_thresholds
        if thresholds is not None and not (
            len(thresholds) == self.num_labels and all(0 < threshold < 1 for threshold in thresholds)
        ):
            raise ValueError(f"expected label_thresholds in (0, 1) for {self.num_labels} labels, got {thresholds}")
        if not (math.isfinite(self.target_mean) and 0 < self.target_std < math.inf):
            raise ValueError(f"expected a finite target_mean and target_std > 0, got {self.target_mean} and "
                             f"{self.target_std}")  # fmt: skip

    def validate_dropout(self):
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"expected classifier_dropout in [0, 1), got {self.classifier_dropout}")


@strict
class TopKPoolingSeq2SeqConfig(PooledBackboneConfig):
    """The configuration of an encoder-decoder whose decoder sees the k vectors that a `shtopk.TopKPooling` kept.

    All fields of `TopKPoolingConfig` but `classifier_dropout` are fields here, too. One default differs: in eval mode
    that operator pools which pooled in training, as the decoder has learnt to read what it makes.

    Attributes:
        backbone: configuration of the encoder-decoder, of any that AutoModelForSeq2SeqLM builds (BART by default).
        copy_head: let the decoder copy tokens of the document through the vectors kept; see `shtopk.models.copy_head`.

    Raises:
        StrictDataclassError: a wrong type, a value that `TopKPooling` refuses, or one outside its range.

    Example:
        >>> config = TopKPoolingSeq2SeqConfig(k=64)
        >>> config.backbone.model_type
        'bart'
    """

    model_type = "topk_pooling_seq2seq"
    sub_configs_defaults = {"backbone": SubConfigSpec(config_class=AutoConfig, model_type="bart")}
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # of transformers before 5.24, and since

    is_encoder_decoder: bool = True
    copy_head: bool = False


def check_two_steps(protected: list[int] | tuple[int, ...]) -> None:
    """Raise ValueError for protected tokens, with which pooling in two steps is not defined."""
    if protected:
        raise ValueError("pooling in two steps does not go with protected tokens; leave out window_k and k_by_layer")


def check_unpooled(name: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError for the fields of a model that pools between its layers: in a backbone this would be lost."""
    if any(config.get(field) for field in POOLED):
        raise ValueError(f"expected a backbone that pools nothing, got {name}, which pools between its layers; load "
                         "it with load_pooled, or name what it was made from and give k_by_layer")  # fmt: skip
