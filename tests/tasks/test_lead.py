"""Baselines without a model: the document's beginning, and the nearest training document's summary."""

import random

import pytest

from shtopk.tasks import baselines
from shtopk.tasks.baselines import (
    BASELINES,
    DOCSTRING_BASELINES,
    docstring_body,
    first_sentence,
    first_words,
    name_and_first_words,
    name_words,
    nearest_neighbour,
)

BODY = "Return the mean\nof two numbers, e.g.\nof 1 and 2.\n\nArgs:\n    x: a number"


SENTENCES = {
    "One. Two.": "One.",
    "Wrapped at a\n  fixed width? Two.": "Wrapped at a fixed width?",
    "A title\n\nOne. Two.": "A title",
    "\n\n One": "One",
    "": "",
    " \n": "",
}
NAMES = {
    "successive_halving_topk": "successive halving topk",
    "TopKPooling": "Top K Pooling",
    "utf8Decode": "utf8 Decode",
    "__init__": "init",
    "Reader.readLine": "Reader read Line",
    "_": "",
}
SIGNATURES = [
    "def mean(x, y):",
    "    async def mean(x, y) -> dict[str, int]: ",
    "class Mean:",
    "class Mean(Base, metaclass=Meta):",
    "def mean(\n    x: int,\n    y: int = {1: 2}[1],\n) -> float:",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_first_sentence_runs_over_line_breaks_and_not_over_blank_lines(text):
    assert first_sentence(text) == SENTENCES[text]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_split_where_its_words_meet(name):
    assert name_words(name) == NAMES[name]


def test_first_words_are_as_many_as_asked_for_or_as_there_are():
    assert first_words(" a  b\nc d", 3) == "a b c"
    assert first_words("a b", 3) == "a b"
    assert first_words("", 3) == ""
    with pytest.raises(ValueError, match="expected n >= 1 words, got 0"):
        first_words("a", 0)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_body_is_what_follows_the_signature(signature):
    assert docstring_body(f"{signature}\n{BODY}") == BODY
    assert docstring_body(f"{signature}\n") == docstring_body(signature) == ""


@pytest.mark.parametrize("text", [BODY, "", "Define:\nx", "classes of things:\nx", "def is a keyword"])
def test_a_text_without_a_signature_is_all_body(text):
    assert docstring_body(text) == text


def test_docstrings_are_summarized_by_what_follows_the_signature_and_by_the_name():
    text = f"def weighted_mean(x, y):\n{BODY}"
    assert name_and_first_words(text, 4) == "weighted mean Return the mean of"
    assert name_and_first_words("no signature here", 2) == "no signature"
    assert name_and_first_words("def f():\n") == "f"
    assert {name: baseline(text) for name, baseline in DOCSTRING_BASELINES.items()} == {
        "first_sentence": "Return the mean of two numbers, e.g.",
        "first_16_words": BASELINES["first_16_words"](BODY),
        "name_and_first_8_words": "weighted mean Return the mean of two numbers, e.g. of",
    }


def test_baselines_take_any_text():
    for baseline in (*BASELINES.values(), *DOCSTRING_BASELINES.values()):
        assert baseline("") == ""
        assert set(baseline("word " * 200).split()) == {"word"}
    assert len(BASELINES["first_100_words"]("word " * 200).split()) == 100


# Nearest neighbour


def documents(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"word{rng.randint(0, 60)}" for _ in range(12)) for _ in range(n)]


def test_a_training_document_finds_its_own_summary_in_any_word_order():
    texts = documents(50, seed=0)
    summaries = [f"summary {i}" for i in range(50)]
    turned = [" ".join(reversed(text.split())) for text in texts]
    assert nearest_neighbour(texts, summaries, turned) == summaries


def test_rare_words_say_more_than_common_ones():
    train = ["of the cat", "on a whale", "of the dog", "of the house"]
    assert nearest_neighbour(train, ["cat", "whale", "dog", "house"], ["of the whale"]) == ["whale"]


def test_the_first_of_equally_near_documents_answers():
    assert nearest_neighbour(["some text", "some text"], ["first", "second"], ["some", "unknown", ""]) == ["first"] * 3


def test_answers_do_not_depend_on_how_many_texts_are_compared_at_a_time(monkeypatch):
    train, texts = documents(40, seed=0), documents(23, seed=1)
    answers = nearest_neighbour(train, train, texts)
    for rows in (7, 1):
        monkeypatch.setattr(baselines, "MEGABYTES", rows * 40 * 8 / 2**20)
        assert nearest_neighbour(train, train, texts) == answers


def test_nothing_to_summarize_or_to_look_up_in():
    assert nearest_neighbour(["some text"], ["summary"], []) == []
    for texts, summaries, got in (([], [], "0 and 0"), (["a"], ["a", "b"], "1 and 2")):
        with pytest.raises(ValueError, match=f"as many train_texts as train_summaries, got {got}"):
            nearest_neighbour(texts, summaries, ["text"])
