"""Everything that is asked of a classifier's answers: figures by class, intervals, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

RESAMPLES = 1000
LARGEST, MISTAKES = 100, 100  # classes of a matrix; pairs of classes that are listed where there are more


def classification_report(
    predictions: Sequence[int], references: Sequence[int], probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The figures of n documents and C classes.

    Args:
        predictions: [n] class numbers, n >= 1.
        references: [n] the true ones.
        probabilities: [n, C] in [0, 1].
        names: of the classes, by their numbers.

    Returns:
        `metrics`: accuracy; f1 (macro: over the classes among predictions or references); f1_weighted (by the
        documents of a class), all in [0, 1]; mcc (Matthews' correlation coefficient), in [-1, 1]; and auroc, if every
        class has documents (of the second class for two, else the mean of every class against the rest). `intervals`:
        their 95 % confidence intervals over documents, [low, high], by the percentile bootstrap. `classes`: {name:
        precision, recall, f1 and number of documents}. `confusion`: [C][C] documents of a class (row) by the class
        they were given (column); of more than 100 classes in its place `confusions`, the 100 most frequent mistakes:
        class, answered, and number of documents.

    Example:
        >>> report = classification_report([0, 1, 1], [0, 1, 0], np.eye(2)[[0, 1, 1]], ["a", "b"])
        >>> report["confusion"], round(report["metrics"]["mcc"], 3)
        ([[1, 1], [0, 1]], 0.5)
    """
    count, given, truth = len(names), np.asarray(predictions), np.asarray(references)
    pairs = truth * count + given
    metrics = dict(zip(METRICS, map(float, _metrics(truth, given, count)), strict=True))
    intervals = _intervals(np.sort(pairs), count)  # the same documents in any order give the same bounds
    if len(np.unique(truth)) == count:
        metrics["auroc"] = float(_auroc(truth, probabilities))
    columns = precision_recall_fscore_support(truth, given, labels=range(count), zero_division=0)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    by_class = [dict(zip(("precision", "recall", "f1", "documents"), row, strict=True)) for row in rows]
    return {"metrics": metrics, "intervals": intervals, "classes": dict(zip(names, by_class, strict=True)),
            **_confusion(pairs, names)}  # fmt: skip


def _confusion(pairs: np.ndarray, names: Sequence[str]) -> dict[str, list]:
    """Who is taken for whom, as a matrix or, where that would be large, as the most frequent mistakes."""
    count = len(names)
    if count <= LARGEST:
        return {"confusion": np.bincount(pairs, minlength=count**2).reshape(count, count).tolist()}
    cells, documents = np.unique(pairs, return_counts=True)
    true, given = np.divmod(cells, count)
    order = np.argsort(-documents, kind="stable")
    wrong = order[true[order] != given[order]][:MISTAKES].tolist()
    return {"confusions": [{"class": names[true[i]], "answered": names[given[i]], "documents": int(documents[i])}
                           for i in wrong]}  # fmt: skip


METRICS = ("accuracy", "f1", "f1_weighted", "mcc")


def _metrics(truth: np.ndarray, given: np.ndarray, count: int) -> tuple[float, float, float, float]:
    """The figures named in `METRICS`, from the true classes [n] and the given ones [n], of so many."""
    right, of_class, as_class = (
        np.bincount(classes, minlength=count) for classes in (truth[truth == given], truth, given)
    )
    n = len(truth)
    f1 = 2 * right / np.maximum(of_class + as_class, 1)
    seen = of_class + as_class > 0
    squares = np.sqrt(float(n**2 - (of_class**2).sum()) * float(n**2 - (as_class**2).sum()))
    mcc = (n * right.sum() - (of_class * as_class).sum()) / squares if squares else 0.0
    return right.sum() / n, f1[seen].mean(), (f1 * of_class).sum() / n, mcc


def _intervals(pairs: np.ndarray, count: int, seed: int = 0) -> dict[str, list[float]]:
    generator, n = np.random.default_rng(seed), len(pairs)
    drawn = [_metrics(*np.divmod(pairs[generator.integers(n, size=n)], count), count) for _ in range(RESAMPLES)]
    bounds = np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T
    return dict(zip(METRICS, bounds.tolist(), strict=True))


def _auroc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    if probabilities.shape[1] == 2:
        return roc_auc_score(truth, probabilities[:, 1])
    # scikit-learn wants rows that sum to 1, closer than float32 has them.
    of_each = [roc_auc_score(truth == i, probabilities[:, i]) for i in range(probabilities.shape[1])]
    return np.mean(of_each)
