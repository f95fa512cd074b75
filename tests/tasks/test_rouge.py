"""ROUGE by hand on small texts, intervals that mean something, and degenerate output that is seen."""

import random

import numpy as np
import pytest

from shtopk.tasks.rouge import (
    ROUGE,
    SUMMARIZATION_METRICS,
    confidence_interval,
    document_scores,
    summarization_metrics,
)
from shtopk.tasks.sentences import sentences

VOCABULARY = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "house", "slowly", "never", "and", "it", "red"]


def scores(prediction: str, reference: str) -> dict[str, float]:
    return dict(zip(ROUGE, document_scores([prediction], [reference])[0], strict=True))


def corpus(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(VOCABULARY, k=rng.randint(3, 12))) for _ in range(n)]


# Scores


def test_scores_are_those_computed_by_hand():
    # Shared: the, cat; "the cat"; the subsequence "the cat". Out of 3 words and 2 bigrams on both sides.
    assert scores("the cat ran", "the cat sat") == pytest.approx(
        {"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3, "rougeLsum": 2 / 3}
    )
    # All 3 words, "a b" out of 2 bigrams, the subsequence "a b".
    assert scores("c a b", "a b c") == pytest.approx(
        {"rouge1": 1, "rouge2": 1 / 2, "rougeL": 2 / 3, "rougeLsum": 2 / 3}
    )


def test_the_score_balances_precision_and_recall():
    # 2 of 2 predicted words are right (precision 1), 2 of 6 are found (recall 1/3): F = 2/3 / (4/3) = 1/2.
    assert scores("a b", "a b c d e f")["rouge1"] == pytest.approx(1 / 2)


def test_a_word_counts_as_often_as_both_texts_have_it():
    assert scores("the the the the", "the cat the mat")["rouge1"] == pytest.approx(2 / 4)


def test_case_punctuation_and_endings_make_no_difference():
    assert scores("It returned, slowly: the ARRAYS!", "it returns slowly the array") == dict.fromkeys(ROUGE, 1)


def test_identical_texts_score_one():
    assert scores("One thing. Another thing.", "One thing. Another thing.") == dict.fromkeys(ROUGE, 1)


@pytest.mark.parametrize("nothing", ["", " \n", "...", "Καλημέρα"])
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


def test_the_result_is_plain_floats_under_the_published_names():
    metrics = summarization_metrics(corpus(5), corpus(5, seed=1))
    assert set(metrics) == set(SUMMARIZATION_METRICS) and len(metrics) == 18
    assert all(type(value) is float for value in metrics.values())


def test_a_corpus_scores_the_mean_of_its_documents():
    metrics = summarization_metrics(["the cat ran", "", "a dog"], ["the cat sat", "x", "a dog"])
    assert metrics["rouge1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert metrics["rouge2"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_the_order_of_the_documents_makes_no_difference():
    predictions, references = corpus(40), corpus(40, seed=1)
    order = random.Random(2).sample(range(40), 40)
    metrics = summarization_metrics(predictions, references)
    again = summarization_metrics([predictions[i] for i in order], [references[i] for i in order])
    assert again == pytest.approx(metrics, rel=1e-12)  # sums in another order


def test_metrics_leave_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))
    summarization_metrics(["a"], ["a"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (["a"], ["a", "b"], "expected as many predictions as references, got 1 and 2"),
        ([], [], "expected as many predictions as references, got 0 and 0"),
        ("ab", ["a", "b"], "expected predictions to be a list of texts, got the text 'ab'"),
        (["a", None], ["a", "b"], "expected predictions[1] to be a text, got None (NoneType)"),
        (["a"], [["a", "b"]], "expected references[0] to be a text, got ['a', 'b'] (list)"),
    ],
)
def test_lists_that_cannot_be_scored_are_refused_in_one_line(predictions, references, expected):
    with pytest.raises(ValueError) as caught:
        summarization_metrics(predictions, references)
    assert str(caught.value) == expected


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
    low, high = confidence_interval(sample)
    error = 1.96 * sample.std() / 2000**0.5
    # 1,000 resamples know a bound to about a tenth of the interval's half.
    assert low[0] == pytest.approx(sample.mean() - error, abs=0.15 * error)
    assert high[0] == pytest.approx(sample.mean() + error, abs=0.15 * error)


def test_intervals_are_the_same_every_time_and_for_every_order():
    sample = np.random.default_rng(0).random((50, 4))
    first = confidence_interval(sample)
    assert np.array_equal(confidence_interval(sample), first)
    assert np.array_equal(confidence_interval(sample[::-1]), first)
    assert not np.array_equal(confidence_interval(sample, seed=1), first)


def test_equal_documents_leave_no_doubt():
    metrics = summarization_metrics(["the cat ran"] * 7, ["the cat sat"] * 7)
    assert metrics["rouge1_low"] == metrics["rouge1"] == metrics["rouge1_high"]
    metrics = summarization_metrics(["the cat ran"], ["the cat sat"])
    assert metrics["rouge1_low"] == metrics["rouge1"] == metrics["rouge1_high"]


# Degenerate output


def degeneration(predictions: list[str]) -> dict[str, float]:
    return summarization_metrics(predictions, ["one two three four"] * len(predictions))


def test_lengths_are_words_however_punctuation_is_spaced():
    metrics = summarization_metrics(["a b-c\nd", ""], ["x.y", "a b c d"])
    assert (metrics["prediction_words"], metrics["reference_words"]) == (2.0, 3.0)


def test_a_trigram_that_comes_again_is_counted_once_a_text():
    repeating = ["The cat sat. the cat, sat", "a a a a", "a b c a b c a b c"]
    others = ["a a a", "a b c a b", "", "a b\nc d"]
    assert degeneration(repeating)["prediction_repeats"] == 1
    assert degeneration(others)["prediction_repeats"] == 0
    metrics = summarization_metrics(["a", "a a a a"], ["a a a a", "x x x x"])
    assert (metrics["prediction_repeats"], metrics["reference_repeats"]) == (0.5, 1)


def test_predictions_without_words_are_counted():
    assert degeneration(["", " ", ".", "a"])["empty"] == 0.75


def test_one_answer_for_everything_is_seen():
    assert degeneration(["a", "a ", "a", "\na"])["distinct"] == 1 / 4
    assert degeneration(["a", "b", "c", "d"])["distinct"] == 1
