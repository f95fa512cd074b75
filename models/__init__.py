"""Hugging Face models whose encoder pools its tokens to k. Importing this registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from .backbone import freeze_layers
from .checkpoint import load_checkpoint
from .configuration_topk_pooling import TopKPoolingConfig, TopKPoolingSeq2SeqConfig
from .model_card import write_model_card
from .modeling_topk_pooling import TopKPoolingForSequenceClassification, TopKPoolingModel
from .modeling_topk_pooling_seq2seq import TopKPoolingForConditionalGeneration
from .outputs import PooledEncoderOutput, TopKPoolingClassifierOutput, TopKPoolingModelOutput
from .prediction import ANSWER_NOW, KeptToken, Prediction, predict
from .pretrained import default_encoder, load_tokenizer, verify_sha256
from .windows import encode_in_windows, pool_in_windows

AutoConfig.register(TopKPoolingConfig.model_type, TopKPoolingConfig, exist_ok=True)
AutoConfig.register(TopKPoolingSeq2SeqConfig.model_type, TopKPoolingSeq2SeqConfig, exist_ok=True)
AutoModel.register(TopKPoolingConfig, TopKPoolingModel, exist_ok=True)
AutoModelForSequenceClassification.register(TopKPoolingConfig, TopKPoolingForSequenceClassification, exist_ok=True)
AutoModelForSeq2SeqLM.register(TopKPoolingSeq2SeqConfig, TopKPoolingForConditionalGeneration, exist_ok=True)
# A saved checkpoint carries the files of these classes along and loads where only shtopk is installed.
TopKPoolingConfig.register_for_auto_class()
TopKPoolingModel.register_for_auto_class("AutoModel")
TopKPoolingForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
TopKPoolingSeq2SeqConfig.register_for_auto_class()
TopKPoolingForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")

__all__ = [
    "ANSWER_NOW",
    "KeptToken",
    "PooledEncoderOutput",
    "Prediction",
    "TopKPoolingClassifierOutput",
    "TopKPoolingConfig",
    "TopKPoolingForConditionalGeneration",
    "TopKPoolingForSequenceClassification",
    "TopKPoolingModel",
    "TopKPoolingModelOutput",
    "TopKPoolingSeq2SeqConfig",
    "default_encoder",
    "encode_in_windows",
    "freeze_layers",
    "load_checkpoint",
    "load_tokenizer",
    "pool_in_windows",
    "predict",
    "verify_sha256",
    "write_model_card",
]
