"""ROUGE by hand on small texts, intervals that mean something, and degenerate output that is seen."""

import random
import re

import numpy as np
import pytest
from rouge_score.tokenizers import DefaultTokenizer

from shtopk.tasks.names import ROUGE, SUMMARIZATION_METRICS
from shtopk.tasks.rouge import confidence_interval, document_scores, summarization_metrics
from shtopk.tasks.rouge_words import Words
from shtopk.tasks.sentences import sentences

VOCABULARY = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "house", "slowly", "never", "and", "it", "red"]


def scores(prediction: str, reference: str) -> dict[str, float]:
    return dict(zip(ROUGE, document_scores([prediction], [reference])[0], strict=True))


def corpus(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(VOCABULARY, k=rng.randint(3, 12))) for _ in range(n)]


# Scores


BY_HAND = [  # prediction, reference, and ROUGE-1, 2 and L; Lsum is L where there is one sentence
    # Shared: the, cat; "the cat"; the subsequence "the cat". Out of 3 words and 2 bigrams on both sides.
    ("the cat ran", "the cat sat", [2 / 3, 1 / 2, 2 / 3]),
    # All 3 words, "a b" out of 2 bigrams, the subsequence "a b".
    ("c a b", "a b c", [1, 1 / 2, 2 / 3]),
    # 2 of 2 predicted words are right (precision 1), 2 of 6 are found (recall 1/3): F = 2/3 / (4/3) = 1/2.
    ("a b", "a b c d e f", [1 / 2, 1 / 3, 1 / 2]),
    # A word counts as often as both texts have it.
    ("the the the the", "the cat the mat", [2 / 4, 0, 2 / 4]),
]


@pytest.mark.parametrize(("prediction", "reference", "expected"), BY_HAND)
def test_scores_are_those_computed_by_hand(prediction, reference, expected):
    assert list(scores(prediction, reference).values()) == pytest.approx([*expected, expected[-1]])


def test_case_punctuation_and_endings_make_no_difference():
    assert scores("It returned, slowly: the ARRAYS!", "it returns slowly the array") == dict.fromkeys(ROUGE, 1)


@pytest.mark.parametrize(("prediction", "reference", "expected"), [
    ("Кошка сидела на ковре", "Кошка сидела на стуле.", [3 / 4, 2 / 3, 3 / 4]),
    ("Die Größe zählt", "die große zählt", [2 / 3, 0, 2 / 3]),
    ("stătea pe masă", "stătea pe scaun", [2 / 3, 1 / 2, 2 / 3]),
    ("東京は晴れ", "東京は雨", [3 * 2 / 9, 2 * 2 / 7, 3 * 2 / 9]),  # each letter is a word
    ("กิน", "กิน ข้าว", [2 * 2 / 7, 2 * 1 / 5, 2 * 2 / 7]),  # a mark belongs to its letter
    ("हिन्दी भाषा", "हिन्दी में", [1 / 2, 0, 1 / 2]),
    ("The cafe\u0301 returned", "the café returns", [1, 1, 1]),  # in one character or two
])  # fmt: skip
def test_other_scripts_are_scored_by_their_words(prediction, reference, expected):
    assert list(scores(prediction, reference).values()) == pytest.approx([*expected, expected[-1]])
    assert scores(reference, reference) == dict.fromkeys(ROUGE, 1)


@pytest.mark.parametrize("text", ["It said «arrays» — returned … twice", "x² of “it”: 3½", "→ a • b"])
def test_marks_beyond_ascii_change_nothing_where_all_letters_are_ascii(text):
    assert Words().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@pytest.mark.parametrize("nothing", ["", " \n", "...", "—…"])
def test_a_text_without_words_scores_zero(nothing):
    assert scores(nothing, "the cat sat") == dict.fromkeys(ROUGE, 0)
    assert scores("the cat sat", nothing) == dict.fromkeys(ROUGE, 0)
    assert scores(nothing, nothing) == dict.fromkeys(ROUGE, 0)


@pytest.mark.parametrize("break_", [". ", "\n", '." ', "? "])
def test_lsum_takes_sentences_in_any_order_and_l_does_not(break_):
    found = scores(f"the cat sat{break_}a dog ran", f"a dog ran{break_}the cat sat")
    assert found["rougeLsum"] == 1
    assert found["rougeL"] == pytest.approx(3 / 6)


def test_sentences_end_at_marks_and_at_line_breaks_in_any_case():
    text = 'He said "no." she left!\nThe title\n\nVersion 1.5 of it?  yes'
    expected = ['He said "no."', "she left!", "The title", "Version 1.5 of it?", "yes"]
    assert list(sentences(text)) == expected
    assert list(sentences(text.lower())) == [sentence.lower() for sentence in expected]


# The corpus


def test_a_corpus_scores_the_mean_of_its_documents_in_plain_floats_under_the_published_names():
    metrics = summarization_metrics(["the cat ran", "", "a dog"], ["the cat sat", "x", "a dog"])
    assert metrics["rouge1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert metrics["rouge2"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert set(metrics) == set(SUMMARIZATION_METRICS) and len(metrics) == 18
    assert all(type(value) is float for value in metrics.values())


def test_the_order_of_the_documents_makes_no_difference():
    predictions, references = corpus(40), corpus(40, seed=1)
    order = random.Random(2).sample(range(40), 40)
    metrics = summarization_metrics(predictions, references)
    again = summarization_metrics([predictions[i] for i in order], [references[i] for i in order])
    assert again == pytest.approx(metrics, rel=1e-12)  # sums in another order


NO_TEXTS = [  # predictions, references, and what the message says
    ("ab", ["a", "b"], "expected predictions to be a list of texts, got the text 'ab'"),
    (["a", None], ["a", "b"], "expected predictions[1] to be a text, got None (NoneType)"),
    (["a"], [["a", "b"]], "expected references[0] to be a text, got ['a', 'b'] (list)"),
]


@pytest.mark.parametrize(("predictions", "references", "expected"), NO_TEXTS)
def test_what_holds_no_texts_is_refused_in_one_line(predictions, references, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        summarization_metrics(predictions, references)


# Intervals


def test_an_interval_contains_the_mean_and_shrinks_with_more_documents():
    widths = []
    for n in (20, 320):
        metrics = summarization_metrics(corpus(n), corpus(n, seed=1))
        for name in ROUGE:
            assert 0 <= metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"] <= 1
        widths.append(metrics["rouge1_high"] - metrics["rouge1_low"])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.5)  # 16 times the documents; the samples differ in spread


def test_an_interval_is_that_of_the_normal_distribution_for_many_documents():
    sample = np.random.default_rng(0).normal(size=(2000, 1))
    error = 1.96 * sample.std() / 2000**0.5
    expected = [[sample.mean() - error], [sample.mean() + error]]
    # 1,000 resamples know a bound to about a tenth of the interval's half.
    np.testing.assert_allclose(confidence_interval(sample), expected, rtol=0, atol=0.15 * error)


def test_intervals_are_the_same_every_time_and_for_every_order():
    sample = np.random.default_rng(0).random((50, 4))
    first = confidence_interval(sample)
    assert np.array_equal(confidence_interval(sample), first)
    assert np.array_equal(confidence_interval(sample[::-1]), first)
    assert not np.array_equal(confidence_interval(sample, seed=1), first)


@pytest.mark.parametrize("n", [1, 7])
def test_equal_documents_leave_no_doubt(n):
    metrics = summarization_metrics(["the cat ran"] * n, ["the cat sat"] * n)
    assert metrics["rouge1_low"] == metrics["rouge1"] == metrics["rouge1_high"]


# Degenerate output


def degeneration(*predictions: str) -> dict[str, float]:
    return summarization_metrics(predictions, ["one two three four"] * len(predictions))


def test_lengths_are_words_however_punctuation_is_spaced():
    metrics = summarization_metrics(["a b-c\nd", ""], ["x.y", "a b c d"])
    assert (metrics["prediction_words"], metrics["reference_words"]) == (2.0, 3.0)


def test_a_trigram_that_comes_again_is_counted_once_a_text():
    assert degeneration("The cat sat. the cat, sat", "a a a a", "a b c a b c a b c")["prediction_repeats"] == 1
    assert degeneration("a a a", "a b c a b", "", "a b\nc d")["prediction_repeats"] == 0
    assert degeneration("東京で雨が降る。" * 3, "東京で雨")["prediction_repeats"] == 0.5
    metrics = summarization_metrics(["a", "a a a a"], ["a a a a", "x x x x"])
    assert (metrics["prediction_repeats"], metrics["reference_repeats"]) == (0.5, 1)


def test_predictions_without_words_and_one_answer_for_everything_are_seen():
    assert degeneration("", " ", ".", "a")["empty"] == 0.75
    assert degeneration("a", "a ", "a", "\na")["distinct"] == 1 / 4
    assert degeneration("a", "b", "c", "d")["distinct"] == 1
