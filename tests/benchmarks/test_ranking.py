"""Metrics of a search, from the ranks of the right documents."""

import doctest
import math

import numpy as np
import pytest
import ranking
from ranking import from_text, metrics, to_text
from sklearn.metrics import ndcg_score

RANKS = [1, 2, 10, 11, 250]


def test_a_hit_counts_as_far_as_a_metric_looks():
    found = metrics(RANKS)
    assert found["recall@1"] == 1 / 5
    assert found["recall@10"] == 3 / 5
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11 + 1 / 250) / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 5)


def test_the_gain_is_that_of_scikit_learn():
    scores = np.random.default_rng(0).normal(size=(20, 60))
    relevant = np.eye(60)[:20]
    ranks = (scores >= scores[range(20), range(20)][:, None]).sum(1)
    assert metrics(ranks)["ndcg@10"] == pytest.approx(ndcg_score(relevant, scores, k=10))


def test_ranks_survive_their_text():
    assert to_text(RANKS) == "1 2 10 11 250"
    assert from_text(to_text(RANKS)).tolist() == RANKS


def test_the_example_of_the_docstring_is_right():
    assert doctest.testmod(ranking).failed == 0
