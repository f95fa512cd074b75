"""Paired differences between two ways, and which rows of a column are as good as the best."""

import doctest
import math

import numpy as np
import paired
import pytest
from paired import best_rows, difference, interval, less_best


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_error_of_a_difference_is_that_of_its_pairs(rng):
    hard = rng.random(500)  # how hard each document is, for both
    way, other = [hard + 0.1], [hard + 0.01 * rng.standard_normal(500)]
    found = difference(way, other)
    pairs = np.subtract(way, other)[0]
    assert found.mean == pytest.approx(pairs.mean())
    assert found.documents == pytest.approx(pairs.std(ddof=1) / math.sqrt(500))
    assert found.documents < 0.1 * hard.std() / math.sqrt(500)
    assert found.seeds == 0


def test_queries_of_a_document_are_no_evidence_of_their_own(rng):
    way, other = rng.random((1, 200)), rng.random((1, 200))
    once = difference(way, other)
    thrice = difference(way.repeat(3, 1), other.repeat(3, 1), np.arange(200).repeat(3))
    assert thrice == pytest.approx(once)
    assert difference(way.repeat(3, 1), other.repeat(3, 1)).documents < 0.6 * once.documents


def test_documents_of_unequal_numbers_of_queries_vary_as_the_formula_says(rng):
    """Against what the difference does over many draws of documents."""
    counts = rng.integers(1, 6, 20_000)
    effect = rng.standard_normal(20_000) + 0.1 * counts
    drawn = []
    for start in range(0, 20_000, 100):
        part = slice(start, start + 100)
        results = [effect[part].repeat(counts[part])]
        drawn.append(difference(results, np.zeros_like(results), np.arange(100).repeat(counts[part])))
    spread = np.std([one.mean for one in drawn])
    assert np.mean([one.documents for one in drawn]) == pytest.approx(spread, rel=0.15)


def test_seeds_are_averaged_first_and_their_spread_is_an_error_too(rng):
    base = rng.random(300)
    way, other = [base + 0.1, base + 0.2, base + 0.3], [base]
    found = difference(way, other)
    assert found.mean == pytest.approx(0.2)
    assert found.documents == pytest.approx(0, abs=1e-9)
    assert found.seeds == pytest.approx(0.1 / math.sqrt(3))
    assert found.error == pytest.approx(found.seeds)


def test_the_bootstrap_agrees_with_the_error_and_draws_documents(rng):
    way, other = rng.random((1, 400)), rng.random((1, 400))
    owners = np.arange(400).repeat(2)
    found = difference(way, other)
    low, high = interval(way.repeat(2, 1), other.repeat(2, 1), owners)
    assert low < found.mean < high
    assert (high - low) / (2 * 1.96) == pytest.approx(found.documents, rel=0.1)
    assert interval(way, way) == (0, 0)


def test_the_bootstrap_draws_a_document_with_all_of_its_queries(rng):
    counts = rng.integers(1, 9, 300)
    owners = np.arange(300).repeat(counts)
    way, other = [1 + 0.1 * rng.standard_normal(300)[owners]], [np.zeros(len(owners))]
    low, high = interval(way, other, owners)
    assert (high - low) / (2 * 1.96) == pytest.approx(difference(way, other, owners).documents, rel=0.1)


def test_bold_is_the_best_and_what_is_within_an_error_of_it(rng):
    base = rng.random(400)
    noise = rng.standard_normal(400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)  # an error of 1 / 20 of its size
    column = {"best": [base], "near": [base - 0.9 / 20 + noise], "far": [base - 1.1 / 20 + noise]}
    assert best_rows(column) == {"best", "near"}
    assert less_best(column)["best"] == (0, 0, 0)
    assert less_best({"best": [base, base + 0.1], "far": [base]})["best"] == (0, 0, 0)  # its seeds differ, it does not
    assert less_best(column)["far"].mean == pytest.approx(-1.1 / 20)
    assert best_rows({}) == set()
    assert best_rows(column, others=[base.mean() - 1]) == {"best", "near"}
    assert best_rows(column, others=[base.mean() + 1]) == set()  # how far the best is, nobody knows


def test_results_of_other_documents_are_refused():
    with pytest.raises(ValueError, match="expected results of the same 3 items, got 3 and 2; measure both"):
        difference([[1, 0, 1]], [[1, 0]])


def test_the_examples_of_the_docstrings_are_right():
    assert doctest.testmod(paired).failed == 0
