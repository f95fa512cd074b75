"""Tiny encoders of every family that can be pooled between its layers, with attention that depends on positions."""

import torch
from transformers import AutoConfig, AutoModel, T5EncoderModel

V = 50  # words
LAYERS = 4
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 80}  # fmt: skip
DEBERTA = SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
                   "position_buckets": 8, "norm_rel_ebd": "layer_norm"}  # fmt: skip
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
FIELDS = {  # the type of model, and what makes it another one -> fields of its configuration
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "distilbert": {"vocab_size": V, "dim": 32, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 24,
                   "max_position_embeddings": 80},
    "electra": SIZES | {"embedding_size": 16},
    "mpnet": SIZES,
    "deberta-v2": DEBERTA,
    "deberta-v2, convolution and shared keys": DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu",
                                                          "share_att_key": True},
    "modernbert": SIZES | SPECIAL | {"local_attention": 12, "global_attn_every_n_layers": 2, "cls_token_id": 2,
                                     "sep_token_id": 3},
    "eurobert": SIZES | SPECIAL | {"num_key_value_heads": 1},
    "t5": {"vocab_size": V, "d_model": 32, "d_kv": 16, "d_ff": 24, "num_layers": LAYERS, "num_heads": 2,
           "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16},
    "bart": {"vocab_size": V, "d_model": 32, "encoder_layers": LAYERS, "decoder_layers": 1,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
             "max_position_embeddings": 80},
    "vit": {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24,
            "image_size": 24, "patch_size": 4},
}  # fmt: skip
CONFIGS = {name: AutoConfig.for_model(name.split(",")[0], **fields) for name, fields in FIELDS.items()}
VIT = CONFIGS.pop("vit")  # no words
ONLY_EAGER = ("deberta-v2", "mpnet")
SHARP = {"temperature": 1e-4, "initial_temperature": None}


def lively(model):
    """Weights so large that attention is far from uniform: an error in the positions shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return model.eval()


def build(name, attention="eager"):
    """The encoder alone."""
    torch.manual_seed(0)
    fields = CONFIGS[name].to_dict()
    no_dropout = {key: 0.0 for key, value in fields.items() if "dropout" in key and isinstance(value, float)}
    config = type(CONFIGS[name]).from_dict(fields | no_dropout)
    config._attn_implementation = "eager" if name.startswith(ONLY_EAGER) else attention
    if name == "t5":
        return lively(T5EncoderModel(config))
    model = AutoModel.from_config(config)
    return lively(model.encoder if name == "bart" else model)


def with_holes(n, *counts, words=V):
    """Documents [B, n] whose real tokens, so many, stand anywhere; the first one always is real."""
    generator = torch.Generator().manual_seed(sum(counts))
    mask = torch.zeros(len(counts), n, dtype=torch.long)
    for row, count in zip(mask, counts, strict=True):
        row[torch.cat([torch.tensor([0]), 1 + torch.randperm(n - 1, generator=generator)[: count - 1]])] = 1
    return {"input_ids": torch.randint(4, words, mask.shape, generator=generator) * mask, "attention_mask": mask}
