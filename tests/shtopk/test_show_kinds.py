"""The page of each kind of answer, and of models that pool between their layers or not at all."""

import re

import pytest
import torch
from pages import HOSTILE, Text, harmless
from tiny import BERT, LLAMA, tiny_tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import TopKPoolingForSequenceClassification
from shtopk.show import Slot, page
from shtopk.show.answer import answer_and_page
from shtopk.show.describe import describe

NAMES = {0: "sport", 1: "money", 2: "law"}
TEXT = "a goal b match c d bank e f shares"
MANY, NUMBERS = "multi_label_classification", "regression"


def saying(model, *logits):
    """The model, answering these to every document."""
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(logits))
    return model


def shown(model, **options):
    line, html = answer_and_page(model, tiny_tokenizer(), options.pop("text", TEXT), **options)
    return line, html.replace("\u00a0", " ")


@pytest.fixture
def pooled(encoder):
    """A classifier of `shtopk.models` that answers with these logits."""

    def build(*logits, names=NAMES, **fields):
        make = TopKPoolingForSequenceClassification.from_backbone
        return saying(make(encoder, k=4, id2label=names, **fields), *logits)

    return build


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**BERT, id2label=NAMES))


def one_page(values, **options):
    return page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 1.0)])], values, title="t", **options)


def rows(html):
    """[look, name and perhaps a word on the truth, percentage] of each bar."""
    return re.findall(r'<div class="(first|other)"[^>]*>(.*?)</div>.*?<div class="p">([\d.]+ %)</div>', html)


# Kinds of answers


def test_labels_that_hold_together_are_each_shown_for_themselves(pooled):
    line, html = shown(pooled(4.0, -4.0, 4.5, problem_type=MANY), label=["money", "law"])
    assert line == "law (98.9 %), sport (98.2 %)"
    assert rows(html) == [
        ("first", "law <b>true label</b>", "98.9 %"),
        ("first", "sport", "98.2 %"),
        ("other", "money <b>true label</b>", "1.8 %"),
    ]
    assert "every label of at least 50 %, here 2 of 3" in html


def test_where_no_label_holds_the_page_says_so(pooled):
    line, html = shown(pooled(-2.0, -3.0, -4.0, problem_type=MANY), label="law")
    assert line == "none of the labels (highest: sport 11.9 %)"
    assert [look for look, *_ in rows(html)] == ["other"] * 3 and "here none of 3" in html
    assert html.count("true label") == 1


def test_the_threshold_of_a_label_stands_beside_its_name_whatever_the_direction_of_that():
    html = one_page([("مال", 0.9), ("x", 0.1)], problem_type=MANY, label="x", thresholds={"x": 0.05}).replace(
        "\u00a0", " "
    )
    assert [name for _, name, _ in rows(html)] == [
        'مال <span dir="ltr">(from 50.0 %)</span>',
        'x <span dir="ltr">(from 5.0 %)</span> <b>true label</b>',
    ]
    assert "here 2 of 2" in html


def test_every_label_that_holds_is_listed_and_every_true_one():
    labels = [(f"label {i}", 0.99 if i < 14 else 0.4 - i / 1000) for i in range(30)]
    listed = [name for _, name, _ in rows(one_page(labels, problem_type=MANY, label=["label 29"]))]
    assert listed == [*(f"label {i}" for i in range(14)), "label 29 <b>true label</b>"]


@pytest.mark.parametrize("fields", [{"problem_type": NUMBERS}, {}], ids=["said", "a single output"])
def test_a_number_is_shown_as_a_number(pooled, fields):
    line, html = shown(pooled(3.7, names={0: "LABEL_0"}, **fields), label=4)
    assert line == "3.7"
    assert '<div class="number">3.7</div><div><b>true value 4</b></div>' in html
    assert not rows(html) and " %" not in html
    assert "a number, not a class" in html and "LABEL_0" not in html


def test_several_numbers_are_shown_each_with_its_name(pooled):
    line, html = shown(pooled(3.7, -12.25, 1e5, problem_type=NUMBERS), label=[4, -12, 2e5])
    assert line == "sport 3.7, money -12.25, law 100000"
    found = re.findall(r'<div[^>]*>([^<]*)</div><div class="number">(.*?)</div><div><b>true value (.*?)</b>', html)
    assert found == [("sport", "3.7", "4"), ("money", "-12.25", "-12"), ("law", "100000", "200000")]


@pytest.mark.parametrize("label", ["4", [4.0, 1.0], ["4"]])
def test_a_true_answer_that_is_no_number_is_refused_where_numbers_are_predicted(label):
    with pytest.raises(ValueError, match="expected as true answer a number for each of 1 outputs, got"):
        one_page([("x", 3.7)], problem_type=NUMBERS, label=label)


def test_a_text_with_half_a_character_is_refused(plain):
    with pytest.raises(ValueError, match="expected texts of valid Unicode, got a lone surrogate in"):
        answer_and_page(plain, tiny_tokenizer(), "goal \ud800")


def test_a_class_is_shown_without_words_on_its_kind(pooled):
    line, html = shown(pooled(1.0, 2.0, -4.0), label="sport")
    assert line == "money (73.0 %)"
    assert [row[:2] for row in rows(html)] == [
        ("first", "money"),
        ("other", "sport <b>true class</b>"),
        ("other", "law"),
    ]
    assert 'class="legend kind"' not in html


@pytest.mark.parametrize(("kind", "label"), [(MANY, [HOSTILE]), (MANY, HOSTILE), (NUMBERS, [1.5, 2]), (None, HOSTILE)])
def test_whatever_the_names_are_the_page_is_harmless(pooled, kind, label):
    line, html = shown(pooled(4.0, 2.0, names={0: HOSTILE, 1: "x"}, problem_type=kind), text=HOSTILE, label=label)
    read = harmless(html)
    assert read.document == HOSTILE and HOSTILE in read.said and HOSTILE in line


# Models of other kinds


def test_a_model_pooled_between_its_layers_shows_what_its_last_pooling_kept(plain):
    model = pool_encoder(plain, {0: 8, 1: 4}, protected=(0,)).eval()
    kept = model(**tiny_tokenizer()(TEXT, return_tensors="pt", return_token_type_ids=False)).assignment.positions[0]
    line, html = shown(model, label="law")
    assert Text(html).marked == [TEXT.split()[position - 1] for position in sorted(kept.tolist()) if position]
    assert "4 of 12 tokens kept · select and merge" in html and "law <b>true class</b>" in html
    assert "weight" in html and "score" not in html
    assert line.startswith(rows(html)[0][1].removesuffix(" <b>true class</b>"))


def test_a_classifier_on_a_pooled_language_model_shows_what_was_kept():
    torch.manual_seed(0)
    model = pool_decoder(LlamaForSequenceClassification(LlamaConfig(**LLAMA, id2label=NAMES)), {1: 4})
    _, html = shown(model)
    assert "5 of 12 tokens kept · select and merge" in html and len(Text(html).marked) == 3


def test_a_short_document_of_a_model_pooled_between_its_layers_keeps_every_token(plain):
    _, html = shown(pool_encoder(plain, {1: 8}), text="a goal b")
    assert Text(html).marked == ["a", "goal", "b"] and "5 of 5 tokens kept" in html


def test_of_a_model_without_pooling_answer_and_document_are_shown(plain):
    line, html = shown(saying(plain, 1.0, 2.0, -4.0), label="money")
    assert line == "money (73.0 %)" and "money <b>true class</b>" in html
    assert Text(html).document == TEXT
    assert harmless(shown(plain, text=HOSTILE)[1]).document == HOSTILE
    assert "12 tokens read" in html
    assert not re.search('what was kept|<mark|strip"|<table|temperature', html, re.IGNORECASE)


@pytest.mark.parametrize("layers", [None, {1: 4}], ids=["no pooling", "pooled between"])
def test_a_model_without_windows_reads_as_far_as_its_positions_and_the_page_says_so(plain, layers):
    model, long = plain if layers is None else pool_encoder(plain, layers), " ".join(["goal b"] * 100)
    parts = describe(model, tiny_tokenizer(), long)
    assert len(parts["spans"]) == 64 and parts["facts"][0] == "the first 64 tokens read"
    assert len(describe(model, tiny_tokenizer(), long, max_tokens=9)["spans"]) == 9
    assert "the first" not in describe(model, tiny_tokenizer(), "a b")["facts"][0]
    assert Text(shown(model, text=long)[1]).document == long


@pytest.mark.parametrize("model_class", [BertModel, BertForMaskedLM, BertLMHeadModel])
def test_a_model_that_classifies_nothing_is_refused(model_class):
    with pytest.raises(ValueError, match=f"expected a .*classif.*, got {model_class.__name__}"):
        shown(model_class(BertConfig(**BERT, is_decoder=model_class is BertLMHeadModel)))
