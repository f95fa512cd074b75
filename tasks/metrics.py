"""Accuracy and macro-F1 by `evaluate`, without the hub: `evaluate.load("f1")` would download a script."""

from collections.abc import Sequence

import evaluate
from datasets import Features, Value
from sklearn.metrics import accuracy_score, f1_score


class _Metric(evaluate.Metric):
    """One number from two lists of class numbers."""

    def _info(self):
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions and references: class numbers, equally many",
            features=Features({"predictions": Value("int64"), "references": Value("int64")}),
        )


class Accuracy(_Metric):
    """Share of the predictions that are right."""

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_Metric):
    """Mean of the classes' F1, over the classes that occur among the predictions or the references."""

    def _compute(self, predictions, references):
        return {"f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


def classification_metrics(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Accuracy and macro-F1, both in [0, 1].

    Args:
        predictions: predicted class numbers; a list, a NumPy array or a tensor.
        references: the true class numbers, equally many and at least one.

    Example:
        >>> classification_metrics([0, 1, 1, 0], [0, 1, 0, 0])
        {'accuracy': 0.75, 'f1': 0.7333333333333334}
    """
    if len(predictions) != len(references) or not len(references):
        raise ValueError(f"expected as many predictions as references, got {len(predictions)} and {len(references)}")
    # In memory: a file in the cache would be shared by processes that evaluate at the same time.
    metrics = evaluate.combine([Accuracy(keep_in_memory=True, seed=0), MacroF1(keep_in_memory=True, seed=0)])
    return metrics.compute(predictions=predictions, references=references)
