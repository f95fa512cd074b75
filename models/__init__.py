"""Hugging Face models whose encoder pools its tokens to k. Importing this registers them with the Auto classes."""

from transformers import AutoConfig, AutoModelForSequenceClassification

from .configuration_topk_pooling import TopKPoolingConfig
from .model_card import write_model_card
from .modeling_topk_pooling import TopKPoolingClassifierOutput, TopKPoolingForSequenceClassification
from .pretrained import default_encoder, freeze_layers, load_pretrained_classifier, load_tokenizer, verify_sha256
from .windows import encode_in_windows

AutoConfig.register(TopKPoolingConfig.model_type, TopKPoolingConfig, exist_ok=True)
AutoModelForSequenceClassification.register(TopKPoolingConfig, TopKPoolingForSequenceClassification, exist_ok=True)
# A saved checkpoint carries the files of these classes along and loads where only shtopk is installed.
TopKPoolingConfig.register_for_auto_class()
TopKPoolingForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = [
    "TopKPoolingClassifierOutput",
    "TopKPoolingConfig",
    "TopKPoolingForSequenceClassification",
    "default_encoder",
    "encode_in_windows",
    "freeze_layers",
    "load_pretrained_classifier",
    "load_tokenizer",
    "verify_sha256",
    "write_model_card",
]
