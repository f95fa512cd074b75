"""The configuration of the models that pool their tokens to k."""

# No `from __future__ import annotations` here: `strict` checks no type that is written as a string.
import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from shtopk import TopKPooling


@strict
class TopKPoolingConfig(PreTrainedConfig):
    """An encoder, a `shtopk.TopKPooling` over its token vectors, and a head over the k vectors kept.

    Args:
        backbone: configuration of the encoder, any that AutoModel builds (BERT by default).
        k, operator, boost, temperature, initial_temperature, scorer, keep_order, protected: see
            `shtopk.TopKPooling`; protected is a list.
        window: tokens that the encoder sees at once, >= 2; longer documents are encoded in several windows. None: as
            many as the encoder has positions.
        windows_at_once: windows per call of the encoder, >= 1, a bound on memory.
        classifier_dropout: dropout before the classifier, in [0, 1).

    Raises:
        StrictDataclassError: a wrong type, a value that `TopKPooling` refuses, or another one outside its range.
            (huggingface_hub's; `load_pretrained_classifier` says the same in one line, as a ValueError.)

    Example:
        >>> config = TopKPoolingConfig(k=16, num_labels=5)
        >>> config.backbone.model_type
        'bert'
    """

    model_type = "topk_pooling"
    sub_configs_defaults = {"backbone": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    # What Trainer.predict leaves out: it is for whoever wants to look, and of sizes that differ between batches.
    keys_to_ignore_at_inference = [
        *("pooled_hidden_states", "pooled_attention_mask", "positions", "weights", "slots"),
        *("hidden_states", "attentions"),
    ]

    backbone: PreTrainedConfig | dict | None = None
    k: int | float = 32
    operator: str = "successive_halving"
    boost: str = "softmax"
    temperature: int | float = 0.0625
    initial_temperature: int | float | None = 4.0
    scorer: str = "linear"
    keep_order: bool = True
    protected: list[int] | tuple[int, ...] = ()
    window: int | None = None
    windows_at_once: int = 32
    classifier_dropout: float = 0.1

    def __post_init__(self, **kwargs):
        self.protected = list(self.protected)
        super().__post_init__(**kwargs)

    def pooling_arguments(self) -> dict:
        """What `TopKPooling` is built with, its size aside."""
        names = ("k", "operator", "boost", "temperature", "initial_temperature", "scorer", "keep_order", "protected")
        return {name: getattr(self, name) for name in names}

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        return self.backbone.get_text_config(decoder=decoder, encoder=encoder)

    def validate_pooling(self):
        with torch.device("meta"):  # draws no random numbers, which the weights of the model still need
            TopKPooling(1, **self.pooling_arguments())

    def validate_ranges(self):
        if self.window is not None and self.window < 2:
            raise ValueError(f"expected window >= 2 tokens, got {self.window}")
        if self.windows_at_once < 1:
            raise ValueError(f"expected windows_at_once >= 1, got {self.windows_at_once}")
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"expected classifier_dropout in [0, 1), got {self.classifier_dropout}")
