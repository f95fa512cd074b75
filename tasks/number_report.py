"""Everything that is asked of predicted numbers: errors, correlations and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shtopk.tasks.intervals import intervals
from shtopk.tasks.metrics import error_and_correlation


def regression_report(predictions: Sequence[float], references: Sequence[float]) -> tuple[dict[str, Any], list[float]]:
    """The figures of n documents with a number each, and the squared error of each document, negative.

    Args:
        predictions: the numbers that were given, n >= 1.
        references: the true ones.

    Returns:
        `metrics`: those of `shtopk.tasks.metrics.regression_metrics`. `intervals`: their 95 % confidence intervals
        over documents. Beside that, -(squared error) of each document: more is better.

    Example:
        >>> figures, of_documents = regression_report([1.0, 3.0], [1.0, 2.0])
        >>> figures["metrics"]["mae"], of_documents
        (0.5, [-0.0, -1.0])
    """
    given, true = np.asarray(predictions, float), np.asarray(references, float)
    found = {
        "metrics": error_and_correlation(given, true),
        "intervals": intervals(lambda drawn: error_and_correlation(given[drawn], true[drawn]), len(given)),
    }
    return found, (-((given - true) ** 2)).tolist()
