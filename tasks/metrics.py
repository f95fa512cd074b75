"""Figures of classes, sets of labels and numbers by `evaluate`, without the hub: `evaluate.load("f1")` would download
a script.
"""

from collections.abc import Collection, Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score

from shtopk.tasks.labels import indicators


class Metric(evaluate.Metric):
    """Figures from two lists of equal length, whose elements have a type of `datasets`."""

    element: Any

    def _info(self):
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions and references, equally many",
            features=Features(dict.fromkeys(("predictions", "references"), self.element)),
        )

    @classmethod
    def figures(cls, predictions: Sequence, references: Sequence) -> dict[str, float]:
        if len(predictions) != len(references) or not len(references):
            got = f"{len(predictions)} and {len(references)}"
            raise ValueError(f"expected as many predictions as references, got {got}")
        # In memory: a file in the cache would be shared by processes that evaluate at the same time.
        return cls(keep_in_memory=True, seed=0).compute(predictions=predictions, references=references)


class AccuracyAndF1(Metric):
    """The share of right predictions, and the mean F1 of the classes among the predictions or the references."""

    element = Value("int64")

    def _compute(self, predictions, references):
        f1 = f1_score(references, predictions, average="macro", zero_division=0)
        return {"accuracy": float(accuracy_score(references, predictions)), "f1": float(f1)}


class F1OfSets(Metric):
    """F1 of all answers together and by label, and the share of documents whose labels are all right."""

    element = List(Value("int64"))

    def _compute(self, predictions, references):
        count = 1 + max((label for labels in (*predictions, *references) for label in labels), default=0)
        figures = f1_of_sets(*counts_of_sets(indicators(predictions, count), indicators(references, count)))
        right = [set(given) == set(true) for given, true in zip(predictions, references, strict=True)]
        return figures | {"accuracy": float(np.mean(right))}


class ErrorAndCorrelation(Metric):
    """Mean squared and mean absolute error, Pearson's and Spearman's correlation."""

    element = Value("float64")

    def _compute(self, predictions, references):
        return error_and_correlation(np.asarray(predictions, float), np.asarray(references, float))


def classification_metrics(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Accuracy and macro-F1 of predicted classes, both in [0, 1].

    Args:
        predictions: class numbers, a list, a NumPy array or a tensor of length >= 1.
        references: the true ones, as many.

    Example:
        >>> classification_metrics([0, 1, 1, 0], [0, 1, 0, 0])
        {'accuracy': 0.75, 'f1': 0.7333333333333334}
    """
    return AccuracyAndF1.figures(predictions, references)


def multi_label_metrics(
    predictions: Sequence[Collection[int]], references: Sequence[Collection[int]]
) -> dict[str, float]:
    """Figures of predicted sets of labels, all in [0, 1].

    Args:
        predictions: for each of n >= 1 documents the numbers of its labels, perhaps none.
        references: the true ones.

    Returns:
        `f1_micro`: F1 of all labels of all documents together. `f1`: macro, the mean over the labels that occur among
        predictions or references; 1 if none does. `accuracy`: the share of documents whose labels are all right.

    Raises:
        ValueError: lists of unequal length, or empty ones.

    Example:
        >>> multi_label_metrics([[0, 1], [], [1]], [[0], [], [1]])
        {'f1_micro': 0.8, 'f1': 0.8333333333333333, 'accuracy': 0.6666666666666666}
    """
    return F1OfSets.figures([list(labels) for labels in predictions], [list(labels) for labels in references])


def regression_metrics(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Errors and correlations of predicted numbers.

    Args:
        predictions: n >= 1 numbers.
        references: the true ones.

    Returns:
        `mse` (mean squared error) and `mae` (mean absolute error), >= 0, of which less is better; `pearson` and
        `spearman`, correlation coefficients in [-1, 1], 0 where all predictions or all references are equal.

    Raises:
        ValueError: lists of unequal length, or empty ones.

    Example:
        >>> regression_metrics([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])["mse"]
        0.3333333333333333
    """
    return ErrorAndCorrelation.figures(predictions, references)


def counts_of_sets(given: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each label is given rightly, [L], and how often given and true, taken together, [L].

    Args:
        given: booleans [n, L].
        true: likewise.
    """
    return (given & true).sum(0), given.sum(0) + true.sum(0)


def f1_of_sets(right: np.ndarray, both: np.ndarray) -> dict[str, float]:
    """Micro and macro F1 from `counts_of_sets`."""
    f1 = 2 * right / np.maximum(both, 1)
    total = both.sum()
    micro = 2 * right.sum() / total if total else 1.0
    return {"f1_micro": float(micro), "f1": float(f1[both > 0].mean()) if total else 1.0}


def error_and_correlation(given: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """The figures of `regression_metrics` from arrays [n]."""
    error = given - true
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "pearson": _correlation(given, true),
        "spearman": _correlation(rankdata(given), rankdata(true)),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)), -1, 1))
