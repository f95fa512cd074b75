"""Models around an encoder that is pooled between its layers: heads, decoders, saving, loading, compiling."""

import json
from functools import partial

import pytest
import torch
from compilers import INDUCTOR
from encoders import CONFIGS, SHARP, VIT, lively, with_holes
from encoders import build as encoder
from seq2seq_families import FAMILIES
from tiny import BERT, WORDS
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    EuroBertForSequenceClassification,
    ModernBertForSequenceClassification,
    ViTForImageClassification,
)
from transformers.modeling_outputs import BaseModelOutput

from shtopk.integrations.encoder import load_pooled, pool_encoder, unpool_encoder
from shtopk.integrations.layers.state import STATE
from shtopk.pooling import poolings

DEEPER = {  # fields that give these families an encoder of three layers
    "bart": {"encoder_layers": 3},
    "t5": {"num_layers": 3},
    "encoder-decoder": {"encoder": BertConfig(**BERT | {"num_hidden_layers": 3}).to_dict()},
}
WITH_DECODER = pytest.mark.parametrize("name", DEEPER)


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def build(name):
    torch.manual_seed(0)
    config = FAMILIES[name]
    return lively(AutoModelForSeq2SeqLM.from_config(type(config).from_dict(config.to_dict() | DEEPER[name])))


documents = partial(with_holes, words=len(WORDS))  # of words that these models know


def logits_of(model, document, labels):
    with torch.no_grad():
        return model(**document, decoder_input_ids=labels).logits


@WITH_DECODER
def test_the_decoder_sees_the_slots_under_their_own_mask(name):
    """A document with holes whose tokens all fit: the logits and texts are those of all its tokens."""
    model, document, labels = build(name), documents(30, 12, 5), torch.randint(4, 30, (2, 6))
    expected = logits_of(model, document, labels)
    tokens = {beams: model.generate(**document, num_beams=beams, max_new_tokens=6) for beams in (1, 3)}
    pool_encoder(model, {1: 14, 2: 13}, **SHARP)
    torch.testing.assert_close(logits_of(model, document, labels), expected, atol=1e-4, rtol=1e-4)
    for beams, expected in tokens.items():
        assert model.generate(**document, num_beams=beams, max_new_tokens=6).equal(expected)


@WITH_DECODER
def test_generation_computes_what_training_does(name):
    model, document = pool_encoder(build(name), {1: 7}, temperature=0.5), documents(30, 30, 5)
    out = model.generate(**document, max_new_tokens=5, min_new_tokens=5, return_dict_in_generate=True,
                         output_logits=True, num_beams=1)  # fmt: skip
    logits = logits_of(model, document, out.sequences[:, :-1])
    torch.testing.assert_close(logits, torch.stack(out.logits, 1), atol=1e-4, rtol=1e-4)
    alone = {key: x[1:] for key, x in document.items()}
    torch.testing.assert_close(logits_of(model, alone, out.sequences[1:, :-1]), logits[1:], atol=1e-4, rtol=1e-4)


def classifier(name="bert", model_class=BertForSequenceClassification, **fields):
    torch.manual_seed(0)
    config = CONFIGS[name]
    return lively(model_class(type(config).from_dict(config.to_dict() | {"num_labels": 3} | fields)))


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, BertForSequenceClassification])
def test_saved_and_loaded_it_predicts_the_same(auto_class, tmp_path):
    model = pool_encoder(classifier(), {1: 9, 2: 0.2}, operator="iterative", scorer="mlp")
    document = with_holes(30, 30, 12)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_pooling"] == {
        "k_by_layer": {"1": 9, "2": 0.2}, "operator": "iterative", "eval_operator": "iterative", "temperature": 1.0,
        "initial_temperature": None,
        "scorer": "mlp", "keep_order": True, "protected": [0, -1],
    }  # fmt: skip
    loaded = load_pooled(auto_class, tmp_path).eval()
    assert (
        isinstance(loaded, BertForSequenceClassification) and type(loaded).__name__ == "BertForSequenceClassification"
    )
    assert loaded.bert.encoder.pooling["1"].options.operator == "iterative"
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
    model = pool_encoder(lively(ViTForImageClassification(VIT)), {1: 9}, temperature=0.5).eval()
    images = torch.randn(2, 3, 24, 24)
    model.save_pretrained(tmp_path)
    loaded = load_pooled(AutoModelForImageClassification, tmp_path).eval()
    torch.testing.assert_close(loaded(images).logits, model(images).logits)
    assert (loaded(images).assignment.positions[:, 0] == 0).all()  # [CLS] stays


def test_the_output_says_what_was_kept_and_its_keys_stay_the_same():
    model, document = classifier(), with_holes(30, 30, 12)
    keys = list(model(**document).keys())
    out = pool_encoder(model, {1: 9})(**document)
    assert list(out.keys()) == keys
    assert out.pooled_attention_mask.shape == out.assignment.positions.shape == (2, 9)
    assert out.assignment.weights.shape == out.assignment.slots.shape == (2, 30)
    assert model(**document, return_dict=False)[0].equal(out.logits)


def one_graph(model):
    return torch.compile(model, backend="eager", fullgraph=True)


def compiles_unpooled(name):
    """Whether this torch takes the model of transformers in one graph: torch 2.6 does not."""
    try:
        one_graph(encoder(name, "sdpa"))(**with_holes(30, 30, 12))
    except torch._dynamo.exc.Unsupported:
        return False
    finally:
        torch._dynamo.reset()
    return True


def layer_by_layer(model):
    for layer in list(model.modules()):
        if type(layer).__name__ in ("BertLayer", "ModernBertEncoderLayer", "T5Block"):
            layer.compile(backend="eager")
    return model


def layers_together(model):
    stack = next(x for x in model.modules() if hasattr(x, "pooling") and hasattr(x.pooling, "handles"))
    stack.compile(backend="eager")
    return model


@pytest.mark.parametrize("how", [one_graph, slow(layer_by_layer), slow(layers_together)], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["bert", slow("modernbert"), slow("t5")])
def test_it_compiles_in_one_graph_and_in_parts(name, how):
    torch._dynamo.reset()
    model = pool_encoder(encoder(name, "sdpa"), {1: 9, 3: 5})
    batches = [with_holes(n, n, 12) for n in (30, 26)]
    expected = [model(**document) for document in batches]
    if how is one_graph and not compiles_unpooled(name):
        pytest.skip(f"torch {torch.__version__} does not compile {name} of transformers in one graph, pooled or not")
    compiled = how(model)
    for document, eager in zip(batches, expected, strict=True):
        out = compiled(**document)
        torch.testing.assert_close(out.last_hidden_state, eager.last_hidden_state)
        assert out.assignment.positions.equal(eager.assignment.positions)
        torch.testing.assert_close(out.assignment.weights, eager.assignment.weights)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: AlbertModel(AlbertConfig(hidden_size=16, num_attention_heads=2)), "of type albert; it works for bart,"),
    (lambda: BertLMHeadModel(BertConfig(**BERT, is_decoder=True)), "answers for every token"),
    (lambda: BertForMaskedLM(CONFIGS["bert"]), "BertForMaskedLM answers for every token"),
    (lambda: classifier("modernbert", ModernBertForSequenceClassification, classifier_pooling="mean"),
     "averages over all tokens"),
    (lambda: classifier("eurobert", EuroBertForSequenceClassification), "'bos'"),
])  # fmt: skip
def test_unsupported_models_and_heads_that_need_every_token_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        pool_encoder(build(), {1: 4})


def test_a_head_that_reads_the_first_token_alone_is_not_refused():
    bos = classifier("eurobert", EuroBertForSequenceClassification, classifier_pooling="bos")
    assert pool_encoder(bos, {1: 4})(**with_holes(20, 20)).logits.shape == (1, 3)


def test_pooling_twice_and_unpooling_what_is_not_pooled_are_refused():
    model = pool_encoder(classifier(), {1: 4})
    with pytest.raises(ValueError, match="call unpool_encoder first"):
        pool_encoder(model, {2: 4})
    pool_encoder(unpool_encoder(model), {2: 4})
    with pytest.raises(ValueError, match="expected a model that pool_encoder was called on"):
        unpool_encoder(classifier())


@pytest.mark.parametrize("backend", [pytest.param("inductor", marks=INDUCTOR)])
def test_inductor_finds_the_same_positions(backend):
    """Two stages: inductor once fused the choice of each slot's leading token into nonsense."""
    torch._dynamo.reset()
    model, document = pool_encoder(encoder("bert", "sdpa"), {1: 9, 3: 5}), with_holes(30, 30, 12)
    with torch.no_grad():
        eager, compiled = model(**document), torch.compile(model, backend=backend)(**document)
    assert compiled.assignment.positions.equal(eager.assignment.positions)
    torch.testing.assert_close(compiled.assignment.weights, eager.assignment.weights)


def test_one_pooled_model_may_run_inside_another():
    inner, outer = pool_encoder(classifier(), {1: 9}), pool_encoder(classifier(), {2: 9})
    document = with_holes(30, 30, 12)
    expected = outer(**document)
    outer.bert.encoder.layer[1].register_forward_hook(lambda *_: inner(**document) and None)
    out = outer(**document)
    assert out.logits.equal(expected.logits) and out.assignment.positions.equal(expected.assignment.positions)


def test_nothing_is_left_behind_when_a_part_runs_alone_or_a_layer_fails():
    model, document = pool_encoder(classifier(), {1: 9}), with_holes(30, 30, 12)
    assert model.bert(**document).assignment.positions.shape == (2, 9)
    assert STATE.of_thread.finished is None and STATE.of_thread.running is None
    hook = model.bert.encoder.layer[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**document)
    assert STATE.of_thread.finished is None and STATE.of_thread.running is None and STATE.of_thread.called is None
    hook.remove()
    assert model(**document).assignment.positions.shape == (2, 9)


def test_an_encoder_that_ran_alone_does_not_change_what_the_decoder_sees():
    model, document = pool_encoder(build("bart"), {1: 7}), documents(30, 30, 5)
    encoded = model.get_encoder()(**document)
    assert encoded.attention_mask.shape == (2, 7)
    given = {"input_ids": torch.tensor([[2, 5]] * 2), "encoder_hidden_states": torch.randn(2, 7, 16),
             "encoder_attention_mask": torch.ones(2, 7)}  # fmt: skip
    first = model.get_decoder()(**given).last_hidden_state
    model(**document, decoder_input_ids=given["input_ids"])
    assert model.get_decoder()(**given).last_hidden_state.equal(first)
    by_place = model(document["input_ids"], document["attention_mask"], given["input_ids"], None, encoded)
    assert by_place.logits.equal(model(**document, decoder_input_ids=given["input_ids"]).logits)


@WITH_DECODER
def test_the_mask_of_the_tokens_is_refused_beside_vectors_of_slots_that_say_nothing_of_theirs(name):
    model, document = pool_encoder(build(name), {1: 7}), documents(30, 30, 5)
    encoded, labels = model.get_encoder()(**document), torch.randint(4, 30, (2, 6))
    bare = BaseModelOutput(last_hidden_state=encoded.last_hidden_state)
    refused = r"expected an attention_mask \[B, 7\] of the slots in encoder_outputs, got \[2, 30\]; give all that"
    for given in (bare, bare.to_tuple()):
        with pytest.raises(ValueError, match=refused):
            model(encoder_outputs=given, attention_mask=document["attention_mask"], decoder_input_ids=labels)
    out = model(encoder_outputs=bare, attention_mask=encoded.attention_mask, decoder_input_ids=labels)
    torch.testing.assert_close(out.logits, logits_of(model, document, labels))


def test_options_of_from_pretrained_reach_where_they_belong(tmp_path):
    model, document = pool_encoder(classifier(), {1: 9}), with_holes(30, 30, 12)
    model.save_pretrained(tmp_path / "deep")
    loaded, report = load_pooled(AutoModelForSequenceClassification, tmp_path, subfolder="deep",
                                 hidden_dropout_prob=0.25, output_loading_info=True, dtype=torch.float64)  # fmt: skip
    assert not report["missing_keys"] and loaded.config.hidden_dropout_prob == 0.25
    assert loaded.eval()(**document).logits.dtype == torch.float64
    unpooled = AutoModelForSequenceClassification.from_pretrained(tmp_path / "deep")  # says it is pooled, and is not
    unpooled.save_pretrained(tmp_path / "lost")
    with pytest.raises(ValueError, match="saved without its poolings"):
        load_pooled(AutoModelForSequenceClassification, tmp_path / "lost")


def test_the_encoder_of_an_encoder_decoder_says_on_its_own_how_it_is_pooled(tmp_path):
    model, document = pool_encoder(build("encoder-decoder"), {1: 7}), documents(30, 30, 5)
    model.encoder.save_pretrained(tmp_path)
    alone = load_pooled(AutoModel, tmp_path).eval()
    torch.testing.assert_close(alone(**document).last_hidden_state, model.encoder(**document).last_hidden_state)


def test_flash_attention_is_refused_where_its_window_would_count_slots():
    model, document = pool_encoder(encoder("modernbert"), {1: 9}), with_holes(30, 30, 12)
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="sliding window would count the slots"):
        model(**document)


@WITH_DECODER
def test_another_model_of_the_same_configuration_is_not_said_to_be_pooled(name):
    model = build(name)
    config, was = model.config, model.config.to_dict()
    other = type(model)(config)
    parts = [{id(x.config) for x in each.modules() if hasattr(x, "config")} for each in (model, other)]
    pool_encoder(model, {1: 7})
    assert model.config.encoder_pooling == model.get_encoder().config.encoder_pooling
    assert config.to_dict() == other.config.to_dict() == was
    now = {id(module.config) for module in model.modules() if hasattr(module, "config")}
    assert len(now) == len(parts[0]) and not now & parts[1]


@WITH_DECODER
def test_k_is_saved_as_it_is_now(name, tmp_path):
    model, document = pool_encoder(build(name), {1: 7}), documents(30, 30, 5)
    poolings(model)[0].k = 0.2
    model.save_pretrained(tmp_path)
    loaded = load_pooled(AutoModelForSeq2SeqLM, tmp_path).eval()
    assert loaded.get_encoder()(**document).last_hidden_state.equal(model.get_encoder()(**document).last_hidden_state)
