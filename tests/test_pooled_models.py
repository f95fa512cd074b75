"""Models around an encoder that is pooled between its layers: heads, decoders, saving, loading, compiling."""

import json

import pytest
import torch
from conftest import BART, BERT, SPECIAL
from encoders import CONFIGS, VIT, lively, with_holes
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    EuroBertForSequenceClassification,
    ModernBertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTForImageClassification,
)

from shtopk.integrations.encoder import load_pooled, pool_encoder, unpool_encoder

SHARP = {"temperature": 1e-4, "initial_temperature": None}
DECODERS = {
    "bart": (BartForConditionalGeneration, BartConfig(**BART | {"encoder_layers": 3}, max_position_embeddings=64)),
    "t5": (T5ForConditionalGeneration, T5Config(vocab_size=BART["vocab_size"], d_model=16, d_kv=8, d_ff=17,
                                                num_layers=3, num_decoder_layers=1, num_heads=2, dropout_rate=0.0,
                                                **SPECIAL)),
    "bert with bert": (EncoderDecoderModel, EncoderDecoderConfig(
        encoder=BertConfig(**BERT | {"num_hidden_layers": 3}).to_dict(),
        decoder=BertConfig(**BERT, is_decoder=True, add_cross_attention=True).to_dict(), **SPECIAL)),
}  # fmt: skip
WITH_DECODER = pytest.mark.parametrize("name", DECODERS)


def build(name):
    torch.manual_seed(0)
    model_class, config = DECODERS[name]
    return lively(model_class(config=type(config).from_dict(config.to_dict())))


def loss_and_logits(model, document, labels):
    with torch.no_grad():
        out = model(**document, decoder_input_ids=labels)
    return out.logits


@WITH_DECODER
def test_the_decoder_sees_the_slots_under_their_own_mask(name):
    """A document with holes whose tokens all fit: what follows is what follows from all of its tokens."""
    model, document, labels = build(name), with_holes(30, 12, 5), torch.randint(4, 30, (2, 6))
    document["input_ids"].clamp_(max=BART["vocab_size"] - 1)
    plain = loss_and_logits(model, document, labels)
    tokens = {beams: model.generate(**document, num_beams=beams, max_new_tokens=6) for beams in (1, 3)}
    pool_encoder(model, {1: 14, 2: 13}, **SHARP)
    torch.testing.assert_close(loss_and_logits(model, document, labels), plain, atol=1e-4, rtol=1e-4)
    for beams, expected in tokens.items():
        assert model.generate(**document, num_beams=beams, max_new_tokens=6).equal(expected)


@WITH_DECODER
def test_generation_computes_what_training_does(name):
    model = pool_encoder(build(name), {1: 7}, temperature=0.5)
    document = with_holes(30, 30, 5)
    document["input_ids"].clamp_(max=BART["vocab_size"] - 1)
    out = model.generate(**document, max_new_tokens=5, min_new_tokens=5, return_dict_in_generate=True,
                         output_logits=True, num_beams=1)  # fmt: skip
    logits = loss_and_logits(model, document, out.sequences[:, :-1])
    torch.testing.assert_close(logits, torch.stack(out.logits, 1), atol=1e-4, rtol=1e-4)
    alone = {key: x[1:] for key, x in document.items()}
    torch.testing.assert_close(loss_and_logits(model, alone, out.sequences[1:, :-1]), logits[1:], atol=1e-4, rtol=1e-4)


def classifier(config=None, model_class=BertForSequenceClassification, **fields):
    torch.manual_seed(0)
    config = CONFIGS["bert"] if config is None else config
    return lively(model_class(type(config).from_dict(config.to_dict() | {"num_labels": 3} | fields)))


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, BertForSequenceClassification])
def test_saved_and_loaded_it_predicts_the_same(auto_class, tmp_path):
    model, document = (
        pool_encoder(classifier(), {1: 9, 2: 0.2}, boost="relative", scorer="mlp"),
        with_holes(30, 30, 12),
    )
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_pooling"] == {
        "k_by_layer": {"1": 9, "2": 0.2}, "boost": "relative", "scorer": "mlp",
    }  # fmt: skip
    loaded = load_pooled(auto_class, tmp_path).eval()
    assert type(loaded) is BertForSequenceClassification and loaded.bert.encoder.pooling["1"].boost == "relative"
    assert loaded(**document).logits.equal(model(**document).logits)
    loaded.save_pretrained(tmp_path / "again")
    assert load_pooled(auto_class, tmp_path / "again").eval()(**document).logits.equal(model(**document).logits)


def test_the_bare_encoder_of_a_pooled_classifier_loads_pooled(tmp_path):
    model, document = pool_encoder(classifier(), {1: 9}), with_holes(30, 30)
    model.save_pretrained(tmp_path)
    bare = load_pooled(AutoModel, tmp_path).eval()
    expected = model.bert(**document).last_hidden_state
    torch.testing.assert_close(bare(**document).last_hidden_state, expected)


def test_what_was_not_saved_pooled_is_not_loaded_so(tmp_path):
    classifier().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a checkpoint saved after pool_encoder"):
        load_pooled(AutoModelForSequenceClassification, tmp_path)


def test_images_are_classified(tmp_path):
    torch.manual_seed(0)
    model = pool_encoder(lively(ViTForImageClassification(VIT)), {1: 9}, temperature=0.5)
    images = torch.randn(2, 3, 24, 24)
    model.save_pretrained(tmp_path)
    loaded = load_pooled(AutoModelForImageClassification, tmp_path).eval()
    assert loaded(images).logits.equal(model(images).logits)
    assert (loaded(images).positions[:, 0] == 0).all()  # [CLS] stays


def test_the_output_says_what_was_kept_and_its_keys_stay_the_same():
    model, document = classifier(), with_holes(30, 30, 12)
    keys = list(model(**document).keys())
    out = pool_encoder(model, {1: 9})(**document)
    assert list(out.keys()) == keys
    assert out.pooled_attention_mask.shape == out.positions.shape == (2, 9)
    assert out.choice.weights.shape == out.choice.slots.shape == (2, 30)
    assert model(**document, return_dict=False)[0].equal(out.logits)


@pytest.mark.parametrize("name", ["bert", "modernbert", "t5"])
def test_it_compiles_in_one_graph(name):
    from encoders import build

    torch._dynamo.reset()
    model = pool_encoder(build(name, "sdpa"), {1: 9, 3: 5})
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for n in (30, 26):
        document = with_holes(n, n, 12)
        expected = model(**document).last_hidden_state
        torch.testing.assert_close(compiled(**document).last_hidden_state, expected)


def test_unsupported_models_say_so():
    albert = AlbertModel(AlbertConfig(vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_size=16))
    with pytest.raises(ValueError, match="cannot pool between the layers of a albert model; of these it works: bart,"):
        pool_encoder(albert, {1: 4})
    decoder = BertLMHeadModel(BertConfig(**BERT, is_decoder=True))
    with pytest.raises(ValueError, match="answers for every token"):
        pool_encoder(decoder, {1: 4})


def test_heads_that_need_every_token_say_so():
    with pytest.raises(ValueError, match="BertForMaskedLM answers for every token"):
        pool_encoder(BertForMaskedLM(CONFIGS["bert"]), {1: 4})
    mean = classifier(CONFIGS["modernbert"], ModernBertForSequenceClassification, classifier_pooling="mean")
    with pytest.raises(ValueError, match="averages over all tokens"):
        pool_encoder(mean, {1: 4})
    with pytest.raises(ValueError, match="'bos'"):
        pool_encoder(classifier(CONFIGS["eurobert"], EuroBertForSequenceClassification), {1: 4})
    bos = classifier(CONFIGS["eurobert"], EuroBertForSequenceClassification, classifier_pooling="bos")
    assert pool_encoder(bos, {1: 4})(**with_holes(20, 20)).logits.shape == (1, 3)


def test_twice_is_refused_and_so_is_taking_off_what_is_not_on():
    model = pool_encoder(classifier(), {1: 4})
    with pytest.raises(ValueError, match="call unpool_encoder first"):
        pool_encoder(model, {2: 4})
    pool_encoder(unpool_encoder(model), {2: 4})
    with pytest.raises(ValueError, match="expected a model that pool_encoder was called on"):
        unpool_encoder(classifier())
