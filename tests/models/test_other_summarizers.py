"""Encoder-decoders of rarer families: what differs between them reaches nobody, or is refused by name."""

import copy

import pytest
import torch
from seq2seq_families import V, documents, same_weights
from tiny import BART, SPECIAL, tiny_tokenizer
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingSeq2SeqConfig

LIVELY = BART | {"init_std": 0.3, "max_position_embeddings": 32}
GEMMA = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 17, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.3,
         "sliding_window": 4, "attention_dropout": 0.0, "dropout_rate": 0.0, "pad_token_id": 0}  # fmt: skip
FIELDS = {
    "m2m_100": LIVELY,
    "blenderbot": LIVELY,
    "prophetnet": {"vocab_size": V, "hidden_size": 16, "num_encoder_layers": 1, "num_decoder_layers": 1,
                   "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2, "encoder_ffn_dim": 17,
                   "decoder_ffn_dim": 17, "max_position_embeddings": 32, "dropout": 0.0, "attention_dropout": 0.0,
                   "activation_dropout": 0.0, "init_std": 0.3, **SPECIAL},
    "t5gemma": {"encoder": GEMMA, "decoder": GEMMA, "vocab_size": V, "dropout_rate": 0.0, **SPECIAL},
}  # fmt: skip
TARGETS = torch.tensor([[5, 6, 7], [8, 9, -100]])


def build(family, **fields):
    torch.manual_seed(0)
    backbone = AutoConfig.for_model(family, **copy.deepcopy(FIELDS[family]))
    return TopKPoolingForConditionalGeneration(TopKPoolingSeq2SeqConfig(backbone=backbone, **fields)).eval()


@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_with_k_of_n_it_generates_what_the_backbone_generates(family, beams):
    """T5Gemma's decoder has a window of 4 tokens here, which is none of its view of 12 vectors."""
    model, options = build(family, k=12, operator="hard"), {"max_new_tokens": 8, "min_new_tokens": 8}
    said = model.generate(**documents(12), **options, num_beams=beams)
    assert torch.equal(said, model.backbone.generate(**documents(12), **options, num_beams=beams))


@pytest.mark.parametrize("family", FIELDS)
def test_the_loss_is_the_backbones(family):
    model, batch = build(family, k=12, operator="hard"), documents(12, 12) | {"labels": TARGETS}
    torch.testing.assert_close(model(**batch).loss, model.backbone(**batch).loss)


@pytest.mark.parametrize("family", FIELDS)
def test_saved_and_loaded_again_it_is_the_same(family, tmp_path):
    model, batch = build(family, k=4), documents(9, 30)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert same_weights(model, again)
    assert torch.equal(again.generate(**batch, max_new_tokens=5), model.generate(**batch, max_new_tokens=5))


@pytest.mark.parametrize("family", FIELDS)
def test_targets_are_shifted_as_the_backbone_shifts_them(family):
    model, given = build(family, k=4), []
    model.backbone.get_decoder().register_forward_pre_hook(
        lambda decoder, args, named: given.append(named["input_ids"]), with_kwargs=True
    )
    model(**documents(9, 20), labels=TARGETS)
    shifted = model.prepare_decoder_input_ids_from_labels(TARGETS)
    assert torch.equal(shifted, given[0]) and shifted.tolist() == [[2, 5, 6], [2, 8, 9]]


@pytest.mark.parametrize("family", FIELDS)
def test_a_collator_and_a_copy_head_find_the_targets_shifted(family):
    model = build(family, k=4, copy_head=True)
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 3]}, {"input_ids": [5, 6], "labels": [5, 3]}]
    batch = DataCollatorForSeq2Seq(tiny_tokenizer(), model)(copy.deepcopy(rows))
    assert batch["decoder_input_ids"].tolist() == [[2, 5, 6], [2, 5, 3]]
    assert torch.equal(model(**batch).loss, model(**{**batch, "decoder_input_ids": None}).loss)


def test_a_backbone_that_does_not_name_use_cache_generates(monkeypatch):
    model = build("m2m_100", k=4)
    expected = model.generate(**documents(9), max_new_tokens=5)
    forward = type(model.backbone).forward

    def unnamed(self, encoder_outputs=None, attention_mask=None, decoder_input_ids=None, past_key_values=None, **more):
        return forward(self, encoder_outputs=encoder_outputs, attention_mask=attention_mask,
                       decoder_input_ids=decoder_input_ids, past_key_values=past_key_values, **more)  # fmt: skip

    monkeypatch.setattr(type(model.backbone), "forward", unnamed)
    assert torch.equal(model.generate(**documents(9), max_new_tokens=5), expected)


@pytest.mark.parametrize(("family", "fields"), [
    ("switch_transformers", {"vocab_size": V, "d_model": 16, "d_kv": 8, "d_ff": 17, "num_layers": 1}),
    ("nllb-moe", LIVELY | {"num_experts": 2}),
    ("fsmt", LIVELY | {"src_vocab_size": V, "tgt_vocab_size": V, "langs": ["en", "de"]}),
    ("t5gemma2", {"encoder": {"text_config": GEMMA, "vision_config": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28,
    }}, "decoder": GEMMA}),
    ("bart", LIVELY | {"is_encoder_decoder": False}),
])  # fmt: skip
def test_a_family_whose_decoder_asks_for_more_than_vectors_is_refused(family, fields):
    config = TopKPoolingSeq2SeqConfig(backbone=AutoConfig.for_model(family, **fields))
    with pytest.raises(ValueError, match=f"^expected an encoder-decoder of text .* got one of type {family}, wh"):
        TopKPoolingForConditionalGeneration(config)


@pytest.mark.parametrize("given", [{"decoder_layers": 1}, {"decoder": "other"}])
def test_a_decoder_beside_one_that_is_there_is_refused(given, tmp_path):
    AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("bart", **BART)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"expected no {next(iter(given))} beside"):
        TopKPoolingForConditionalGeneration.from_backbone(tmp_path, **given)
