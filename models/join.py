"""Join an encoder and a decoder to an encoder-decoder. The decoder is given, or starts from the encoder's layers."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, EncoderDecoderConfig, PreTrainedConfig, PreTrainedModel

from .backbone import Backbone, Dtype, commit_of, load_backbone, load_encoder, set_dropout
from .pretrained import load_config, load_tokenizer


def join(
    name: str,
    config: PreTrainedConfig,
    decoder: str | Path | None,
    decoder_layers: int,
    dropout: float | None,
    dtype: Dtype = torch.float32,
) -> Backbone:
    """Join an encoder (its folder or hub name, its configuration) and a decoder; `from_backbone` explains the rest."""
    weights = load_encoder(name, config, dtype).weights
    if decoder is None:
        if not 1 <= decoder_layers <= config.num_hidden_layers:
            raise ValueError(f"expected decoder_layers in 1..{config.num_hidden_layers}, got {decoder_layers}")
        of_decoder = with_cross_attention(config, num_hidden_layers=decoder_layers)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(of_decoder)
        started = decoder_weights(weights, empty, config.num_hidden_layers)
    else:
        decoder_name, of_decoder = load_config(decoder, "a language model")
        set_dropout(of_decoder, dropout)
        of_decoder = with_cross_attention(of_decoder)
        started = load_backbone(AutoModelForCausalLM, decoder_name, of_decoder, dtype, may_lack="cross_?att").weights
    weights = {f"encoder.{key}": tensor for key, tensor in weights.items()}
    weights |= {f"decoder.{key}": tensor for key, tensor in started.items()}
    tokenizer = load_tokenizer(name, commit_of(config))
    return Backbone(name, joined_config(config, of_decoder, tokenizer), weights)


def with_cross_attention(config: PreTrainedConfig, **changes) -> PreTrainedConfig:
    """The configuration of a language model with cross-attention added.

    Raises:
        ValueError: its family has none.
    """
    if type(config) in AutoModelForCausalLM._model_mapping:
        flags = {"is_decoder": True, "add_cross_attention": True}
        config = type(config).from_dict(config.to_dict() | flags | changes)
        with torch.device("meta"):
            names = [name for name, _ in AutoModelForCausalLM.from_config(config).named_parameters()]
        if any(re.search("cross_?att", name) for name in names):
            return config
    raise ValueError(
        f"a model of type {config.model_type} cannot decode what an encoder kept; BERT, RoBERTa, ELECTRA and GPT-2 can"
        "; name one of these, with the encoder's vocabulary, as decoder"
    )


def joined_config(encoder: PreTrainedConfig, decoder: PreTrainedConfig, tokenizer) -> EncoderDecoderConfig:
    """The configuration of both together. A summary starts with the tokenizer's [CLS] and ends with [SEP]."""
    if encoder.vocab_size != decoder.vocab_size:
        sizes = f"{encoder.vocab_size} and {decoder.vocab_size} words"
        raise ValueError(f"expected an encoder and a decoder of one vocabulary, got {sizes}")
    start = tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    return EncoderDecoderConfig(
        encoder=encoder.to_dict(),
        decoder=decoder.to_dict(),
        decoder_start_token_id=start,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )


def decoder_weights(encoder: dict[str, Tensor], decoder: PreTrainedModel, encoder_layers: int) -> dict[str, Tensor]:
    """The weights of a decoder that a bare encoder can fill, as a state dict.

    These are the embeddings, and layers taken at equal distances from the encoder's first to its last. Cross-attention
    and the language model's head stay new.
    """
    count = decoder.config.num_hidden_layers
    source = torch.linspace(0, encoder_layers - 1, count).round().int().tolist()
    found = {}
    for name, tensor in decoder.base_model.state_dict().items():
        key = re.sub(r"(?<=\.)\d+(?=\.)", lambda match: str(source[int(match[0])]), name, count=1)
        if key in encoder and encoder[key].shape == tensor.shape:
            # A copy, or the two models would share the parameter.
            found[f"{decoder.base_model_prefix}.{name}"] = encoder[key].clone()
    return found
