"""Everything that is asked of sets of labels: figures together and by label, and their intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from shtopk.tasks.intervals import intervals
from shtopk.tasks.labels import indicators
from shtopk.tasks.metrics import counts_of_sets, f1_of_sets


def multi_label_report(
    predictions: Sequence[Collection[int]],
    references: Sequence[Collection[int]],
    probabilities: np.ndarray,
    names: Sequence[str],
) -> tuple[dict[str, Any], list[float]]:
    """The figures of n documents with any of L labels, and each document's part in f1_micro.

    Args:
        predictions: for each document the numbers of the labels that were given, n >= 1.
        references: the true ones.
        probabilities: [n, L] in [0, 1].
        names: of the labels, by their numbers.

    Returns:
        `metrics`: those of `shtopk.tasks.metrics.multi_label_metrics`, and auroc, the mean over the labels that some
        documents have and some have not, if there are such. `intervals`: their 95 % confidence intervals over
        documents, auroc aside. `classes`: {label: precision, recall, f1 and number of documents}. Beside that, a
        number for each document, whose mean is f1_micro (see `parts_of_f1_micro`).

    Example:
        >>> figures, of_documents = multi_label_report([[0], [1]], [[0], [0]], np.eye(2), ["a", "b"])
        >>> figures["metrics"]["f1_micro"], of_documents
        (0.5, [1.0, 0.0])
    """
    given, true = indicators(predictions, len(names)), indicators(references, len(names))
    exact = (given == true).all(1)

    def figures(drawn: np.ndarray) -> dict[str, float]:
        return f1_of_sets(*counts_of_sets(given[drawn], true[drawn])) | {"accuracy": float(exact[drawn].mean())}

    metrics = figures(np.arange(len(given)))
    right, both = counts_of_sets(given, true)
    if mixed := [i for i in range(len(names)) if 0 < true[:, i].sum() < len(true)]:
        areas = [roc_auc_score(true[:, i], probabilities[:, i]) for i in mixed]
        metrics["auroc"] = float(np.mean(areas))
    columns = {
        "precision": right / np.maximum(given.sum(0), 1),
        "recall": right / np.maximum(true.sum(0), 1),
        "f1": 2 * right / np.maximum(both, 1),
        "documents": true.sum(0),
    }
    by_label = {name: {key: column[i].item() for key, column in columns.items()} for i, name in enumerate(names)}
    found = {"metrics": metrics, "intervals": intervals(figures, len(given)), "classes": by_label}
    return found, parts_of_f1_micro(given, true, metrics["f1_micro"]).tolist()


def parts_of_f1_micro(given: np.ndarray, true: np.ndarray, f1_micro: float) -> np.ndarray:
    """[n] numbers whose mean is f1_micro, F = 2 sum(r) / sum(s), which is no mean over documents itself.

    r are a document's labels that are right, s those given and those true. Its number is
    `F + (2 r - F s) / mean(s)`: F is linear in it, so that the mean over documents that are drawn with replacement
    follows their F to first order. A document without a label on either side has F.

    Args:
        given: [n, L] bool, the labels given.
        true: [n, L] bool, the true ones.
        f1_micro: F of all n documents, which everyone has if there is no label at all.
    """
    right, sizes = (given & true).sum(1), given.sum(1) + true.sum(1)
    if not sizes.any():
        return np.full(len(sizes), f1_micro)
    return f1_micro + (2 * right - f1_micro * sizes) / sizes.mean()
