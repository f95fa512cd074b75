"""What is told of the tokens reaches the encoder, in every branch and window, or is refused by name."""

import pytest
import torch
from seq2seq_families import build as build_summarizer
from transformers import AutoConfig

from shtopk.models import (
    TopKPoolingConfig,
    TopKPoolingForSequenceClassification,
    TopKPoolingModel,
    encode_in_windows,
    pool_in_windows,
)

V = 60
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 40, "initializer_range": 0.3, "pad_token_id": 1,
         "type_vocab_size": 2}  # fmt: skip
ENCODERS = {
    "bert": SIZES,
    "electra": SIZES | {"embedding_size": 16},
    "roberta": SIZES,
    "deberta-v2": SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "longformer": SIZES | {"attention_window": [8, 8]},
    "xlnet": {"vocab_size": V, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 24, "initializer_range": 0.3},
    "modernbert": SIZES | {"local_attention": 12, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
                           "sep_token_id": 3},
}  # fmt: skip
WITH_SEGMENTS = ("bert", "electra", "roberta", "deberta-v2", "longformer", "xlnet")
WAYS = {  # of reading the documents of `batch`
    "at once": {},
    "windows": {"window": 9},
    "two steps": {"window": 9, "window_k": 3},
}


def build(kind="bert", model_class=TopKPoolingForSequenceClassification, **fields):
    torch.manual_seed(0)
    backbone = AutoConfig.for_model(kind, **ENCODERS[kind])
    return model_class(TopKPoolingConfig(backbone=backbone, **({"k": 4, "num_labels": 3} | fields))).eval()


def batch(*lengths, left=False):
    """Documents of two segments, told apart by token types."""
    torch.manual_seed(sum(lengths))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    mask = mask.flip(1) if left else mask
    ids = torch.randint(5, V, mask.shape).where(mask, 1)
    types = (torch.arange(max(lengths)) % 7 > 3).expand(mask.shape).long() * mask
    return {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WITH_SEGMENTS)
def test_the_second_segment_reaches_the_encoder(kind, way):
    model, documents = build(kind, **WAYS[way]), batch(25, 8)
    one_segment = documents | {"token_type_ids": torch.zeros_like(documents["token_type_ids"])}
    assert not torch.allclose(logits(model, **documents), logits(model, **one_segment), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_answer_depends_on_nothing_but_its_document(kind, way):
    """Whatever else is asked for, whatever it is batched with, wherever padding stands, whatever was read before."""
    model, together = build(kind, **WAYS[way]), batch(25, 8)
    if kind not in WITH_SEGMENTS:
        del together["token_type_ids"]
    first = logits(model, **together)
    for left in (False, True):
        moved = {name: x.flip(1) if left else x for name, x in together.items()}
        if left:  # the short document, with its padding in front, in its order
            moved = {name: torch.cat([together[name][:1], together[name][1:].roll(17, 1)]) for name in together}
        torch.testing.assert_close(logits(model, **moved), first, rtol=1e-4, atol=1e-4)
    for row, length in ((0, 25), (1, 8)):
        alone = {name: x[row : row + 1, :length] for name, x in together.items()}
        torch.testing.assert_close(logits(model, **alone), first[row : row + 1], rtol=1e-4, atol=1e-4)
    if way == "at once":
        for name in ("output_hidden_states", "output_attentions"):
            assert torch.equal(logits(model, **together, **{name: True}), first)
    assert torch.equal(logits(model, **together), first)


@pytest.mark.parametrize("way", WAYS)
def test_embeddings_and_positions_of_ones_own_reach_the_encoder(way):
    model, documents = build(**WAYS[way]), batch(25, 8)
    expected = logits(model, **documents)
    embeds = model.get_input_embeddings()(documents.pop("input_ids"))
    torch.testing.assert_close(logits(model, inputs_embeds=embeds, **documents), expected)
    positions = torch.arange(25).flip(0).unsqueeze(0)
    moved = logits(model, inputs_embeds=embeds, position_ids=positions, **documents)
    assert not torch.allclose(moved, expected, atol=1e-4)


@pytest.mark.parametrize("fields", [{}, {"window": 16}])
def test_a_global_attention_mask_reaches_longformer(fields):
    model, documents = build("longformer", **fields), batch(25, 8)
    first = torch.zeros_like(documents["attention_mask"])
    if not fields:
        first[:, 0] = 1
        torch.testing.assert_close(logits(model, global_attention_mask=first, **documents), logits(model, **documents))
    first[:, 5] = 1
    other = logits(model, global_attention_mask=first, **documents)
    assert not torch.allclose(other, logits(model, **documents), atol=1e-4)


@pytest.mark.parametrize("kind", ["modernbert", "roberta", "deberta-v2"])
def test_an_encoder_of_one_segment_takes_no_second_one(kind, monkeypatch):
    monkeypatch.setitem(ENCODERS, "roberta", SIZES | {"type_vocab_size": 1})
    monkeypatch.setitem(ENCODERS, "deberta-v2", ENCODERS["deberta-v2"] | {"type_vocab_size": 0})
    model, documents = build(kind), batch(25, 8)
    with pytest.raises(ValueError, match=r"expected token_type_ids of 0 alone, as a .* knows one segment; got 1"):
        logits(model, **documents)
    types = torch.zeros_like(documents.pop("token_type_ids"))
    assert torch.equal(logits(model, token_type_ids=types, **documents), logits(model, **documents))


@pytest.mark.parametrize(("given", "message"), [
    ({"head_mask": torch.ones(2, 2)}, "got head_mask; leave it out"),
    ({"global_attention_mask": torch.ones(2, 25)}, "takes global_attention_mask, got a BertModel, which does not"),
    ({"past_key_values": ()}, "expected documents without past_key_values, got some"),
    ({"inputs_embeds": torch.zeros(2, 25, 32)}, "expected input_ids or inputs_embeds, got both"),
    ({"token_type_ids": torch.zeros(2, 24).long()}, r"expected token_type_ids \[2, 25\] for as many tokens, got"),
    ({"attention_mask": torch.ones(2, 25, 25)}, r"expected attention_mask \[B, L\], got \[2, 25, 25\]"),
    ({"position_ids": torch.zeros(25).long()}, "expected position_ids"),
])  # fmt: skip
@pytest.mark.parametrize("model_class", [TopKPoolingForSequenceClassification, TopKPoolingModel])
def test_what_the_encoder_does_not_take_is_refused_by_name(model_class, given, message):
    with pytest.raises(ValueError, match=message):
        build(model_class=model_class)(**batch(25, 8) | given)


def test_an_encoder_that_takes_no_mask_is_refused(monkeypatch):
    monkeypatch.setitem(ENCODERS, "fnet", SIZES)
    with pytest.raises(ValueError, match="takes attention_mask, got a FNetModel, which does not; its vectors"):
        build("fnet")(**batch(25, 8))


def test_hidden_states_and_attentions_stand_where_their_tokens_stand():
    model, documents = build(), batch(25, 8)
    model.set_attn_implementation("eager")  # the one that has weights to give
    moved = {name: torch.cat([x[:1], x[1:].roll(17, 1)]) for name, x in documents.items()}
    out, other = (model(**x, output_hidden_states=True, output_attentions=True) for x in (documents, moved))
    assert len(out.hidden_states) == 3
    for here, there in zip(out.hidden_states, other.hidden_states, strict=True):
        torch.testing.assert_close(here[1, :8], there[1, 17:])
    torch.testing.assert_close(out.attentions[0][1, :, :8, :8], other.attentions[0][1, :, 17:, 17:])
    assert torch.equal(out.positions[1] + 17, other.positions[1])
    bare = build(model_class=TopKPoolingModel)
    assert len(bare(**documents, output_hidden_states=True).hidden_states) == 3


def test_big_bird_forgets_the_short_document_that_it_has_read(monkeypatch):
    monkeypatch.setitem(ENCODERS, "big_bird", SIZES | {"block_size": 2, "num_random_blocks": 1})
    model, documents = build("big_bird"), batch(25, 8)
    first = logits(model, **documents)
    alone = {name: x[1:, :8] for name, x in documents.items()}
    torch.testing.assert_close(logits(model, **alone), first[1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(model, **documents), first)


def test_windows_are_cut_alike_whatever_is_told_of_the_tokens():
    model, documents = build(k=5), batch(25, 8)
    vectors = encode_in_windows(model.backbone, **documents, window=9)
    assert not torch.allclose(vectors[0], encode_in_windows(
        model.backbone, documents["input_ids"], documents["attention_mask"], 9)[0], atol=1e-4)  # fmt: skip
    pooled = pool_in_windows(model.backbone, model.pooling, **documents, window=9, window_k=9)
    torch.testing.assert_close(pooled.pool(vectors), pooled.hidden_states)
    with pytest.raises(ValueError, match="head_mask"):
        encode_in_windows(model.backbone, **documents, window=9, head_mask=torch.ones(2))


@pytest.mark.parametrize("fields", [{}, {"window": 9}, {"window": 9, "window_k": 3}, {"k_by_layer": {"1": 8}}])
def test_the_second_segment_reaches_a_summarizer_in_generation_too(fields):
    model, documents = build_summarizer("encoder-decoder", **fields), batch(25, 8)
    documents["input_ids"] %= 30
    torch.nn.init.normal_(model.encoder.embeddings.token_type_embeddings.weight, std=3)
    labels = documents["input_ids"][:, :5].contiguous()
    one_segment = documents | {"token_type_ids": torch.zeros_like(documents["token_type_ids"])}
    with torch.no_grad():
        two, one = (model(**x, labels=labels).logits for x in (documents, one_segment))
        assert not torch.allclose(two, one, atol=1e-4)
        options = {"max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
        for beams in (1, 2):
            said, other = (model.generate(**x, **options, num_beams=beams) for x in (documents, one_segment))
            assert not torch.allclose(said.logits[0], other.logits[0], atol=1e-4)


@pytest.mark.parametrize("family", ["bart", "t5", "led"])
def test_a_summarizer_of_one_segment_takes_no_second_one(family):
    model, documents = build_summarizer(family), batch(25, 8)
    documents["input_ids"] %= 30
    for call in (model, model.generate, model.get_encoder()):
        with pytest.raises(ValueError, match="expected token_type_ids of 0 alone"):
            call(**documents)
    types = torch.zeros_like(documents.pop("token_type_ids"))
    said = model.generate(**documents, token_type_ids=types, max_new_tokens=3)
    assert torch.equal(said, model.generate(**documents, max_new_tokens=3))


def test_a_summarizer_takes_embeddings_and_a_global_attention_mask():
    model, documents = build_summarizer("led"), batch(25, 8)
    documents = {"input_ids": documents["input_ids"] % 30, "attention_mask": documents["attention_mask"]}
    torch.nn.init.normal_(model.encoder.layers[0].self_attn.longformer_self_attn.value_global.weight, std=3)
    everywhere = documents["attention_mask"]
    encode = model.get_encoder()
    plain = encode(**documents).last_hidden_state
    assert not torch.allclose(encode(**documents, global_attention_mask=everywhere).last_hidden_state, plain)
    said = model.generate(**documents, global_attention_mask=everywhere, max_new_tokens=3)
    assert said.shape[0] == 2
    embeds = model.get_input_embeddings()(documents.pop("input_ids"))
    torch.testing.assert_close(encode(inputs_embeds=embeds, **documents).last_hidden_state, plain)
    assert model.generate(inputs_embeds=embeds, **documents, max_new_tokens=3).shape[0] == 2
    with pytest.raises(ValueError, match="from which the copy head copies"):
        build_summarizer("led", copy_head=True)(inputs_embeds=embeds, labels=torch.ones(2, 3).long(), **documents)


def test_what_a_summarizer_does_not_take_is_refused_by_name():
    documents = {"input_ids": torch.randint(4, 30, (1, 9)), "labels": torch.ones(1, 3).long()}
    for family in ("bart", "t5", "encoder-decoder"):
        with pytest.raises(ValueError, match="got cross_attn_head_mask; leave it out"):
            build_summarizer(family)(**documents, cross_attn_head_mask=torch.ones(1, 2))
    out = build_summarizer()(**documents, output_hidden_states=True)
    assert len(out.encoder_hidden_states) == len(out.decoder_hidden_states) == 2
