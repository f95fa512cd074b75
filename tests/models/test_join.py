"""An encoder and a decoder, joined to one encoder-decoder."""

import pytest
import torch
from seq2seq_families import build, documents
from tiny import BERT
from transformers import AutoModel, AutoModelForSeq2SeqLM, BertConfig, BertLMHeadModel, MPNetConfig, ViTConfig

from shtopk.models import TopKPoolingForConditionalGeneration


def test_an_encoder_alone_gets_a_decoder_that_starts_from_its_first_and_last_layer(encoder, tmp_path):
    model = TopKPoolingForConditionalGeneration.from_backbone(encoder, k=4, copy_head=True)
    given = AutoModel.from_pretrained(encoder, add_pooling_layer=False).state_dict()
    decoder = model.backbone.decoder
    for i, layer in enumerate(decoder.bert.encoder.layer):
        assert torch.equal(layer.attention.self.query.weight, given[f"encoder.layer.{i}.attention.self.query.weight"])
    assert torch.equal(model.encoder.embeddings.word_embeddings.weight, given["embeddings.word_embeddings.weight"])
    assert decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight
    assert all(("crossattention" in name or "cls.predictions" in name) or not name.startswith("backbone")
               for name in model.new_parameters)  # fmt: skip
    assert {"copy_head.query.weight", "pooling.scorer.weight"} < model.new_parameters
    torch.manual_seed(1)
    target = model.generate(**documents(9, 30), max_new_tokens=5)
    assert (target[:, 0] == 2).all()  # [CLS]
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(again.generate(**documents(9, 30), max_new_tokens=5), target)


def test_a_given_decoder_keeps_its_weights(encoder, tmp_path):
    torch.manual_seed(1)
    bare = BertLMHeadModel(BertConfig(**BERT | {"hidden_size": 16, "num_hidden_layers": 1, "is_decoder": True}))
    bare.save_pretrained(tmp_path)
    model = TopKPoolingForConditionalGeneration.from_backbone(encoder, decoder=tmp_path, k=4)
    key = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.backbone.decoder.state_dict()[key], bare.state_dict()[key])
    assert {name.split(".")[-4] for name in model.new_parameters if "crossatt" in name} <= {"crossattention", "0"}
    assert f"backbone.decoder.{key}" not in model.new_parameters
    assert model.generate(**documents(9), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize(("options", "message"), [
    ({"decoder_layers": 3}, r"decoder_layers in 1\.\.2, got 3"),
    ({"decoder": "other"}, "of one vocabulary, got 34 and 40 words"),
])  # fmt: skip
def test_what_cannot_be_joined_is_refused_in_one_line(encoder, tmp_path, monkeypatch, options, message):
    BertLMHeadModel(BertConfig(**BERT | {"vocab_size": 40, "is_decoder": True})).save_pretrained(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        TopKPoolingForConditionalGeneration.from_backbone(encoder, **options)


@pytest.mark.parametrize(("config", "message"), [
    (MPNetConfig(**BERT), "of type mpnet cannot decode what an encoder kept; BERT.* name one of these, .* as decoder"),
    (ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
     r"an encoder-decoder such as BART or T5 .* got a model of type vit"),
], ids=["mpnet", "vit"])  # fmt: skip
def test_what_has_no_decoder_is_refused(config, message, tmp_path):
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        TopKPoolingForConditionalGeneration.from_backbone(tmp_path)


def test_a_checkpoints_beams_and_least_length_give_way_to_what_is_asked_for():
    model = build()
    model.generation_config.update(num_beams=4, early_stopping=True, length_penalty=2.0, min_length=56)
    model.set_generation(max_new_tokens=20, num_beams=1, no_repeat_ngram_size=None)
    kept = model.generation_config
    assert (kept.num_beams, kept.max_new_tokens, kept.min_length) == (1, 20, 0)
    model.set_generation(max_new_tokens=20, num_beams=2, min_new_tokens=7, length_penalty=2.0)
    assert (kept.num_beams, kept.min_new_tokens, kept.length_penalty) == (2, 7, 2.0)
    model.set_generation(max_new_tokens=5)
    assert kept.min_new_tokens == 0
