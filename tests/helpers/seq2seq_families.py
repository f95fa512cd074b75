"""Tiny encoder-decoders of the families that people use, and documents for them."""

import copy

import torch
from tiny import BART, BERT, SPECIAL, WORDS
from transformers import BartConfig, BertConfig, EncoderDecoderConfig, LEDConfig, MBartConfig, PegasusConfig, T5Config

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingSeq2SeqConfig

V = len(WORDS)  # words of the vocabulary
FAMILIES = {
    "bart": BartConfig(**BART, max_position_embeddings=32),
    "mbart": MBartConfig(**BART, max_position_embeddings=32),
    "pegasus": PegasusConfig(**BART, max_position_embeddings=32),
    "led": LEDConfig(**BART, max_encoder_position_embeddings=32, max_decoder_position_embeddings=32,
                     attention_window=8),
    "t5": T5Config(vocab_size=V, d_model=16, d_kv=8, d_ff=17, num_layers=1, num_heads=2, dropout_rate=0.0,
                   **SPECIAL),
    "encoder-decoder": EncoderDecoderConfig(
        encoder=BertConfig(**BERT).to_dict(),
        decoder=BertConfig(**BERT, is_decoder=True, add_cross_attention=True).to_dict(), **SPECIAL),
}  # fmt: skip


def build(family="bart", **fields):
    torch.manual_seed(0)
    backbone = copy.deepcopy(FAMILIES[family])  # a model changes its configuration when it gets new tokens
    config = TopKPoolingSeq2SeqConfig(backbone=backbone, **({"k": 4} | fields))
    return TopKPoolingForConditionalGeneration(config).eval()


def documents(*lengths, longest=None):
    torch.manual_seed(sum(lengths))
    mask = torch.arange(longest or max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return {"input_ids": torch.randint(4, V, mask.shape) * mask, "attention_mask": mask.long()}


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


GENERATION = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 3},
    "static cache": {"cache_implementation": "static"},
}
