"""Accuracy and macro-F1 by `evaluate`, without the hub: `evaluate.load("f1")` would download a script."""

from collections.abc import Sequence

import evaluate
from datasets import Features, Value
from sklearn.metrics import accuracy_score, f1_score


class Metric(evaluate.Metric):
    """Figures from two lists of equal length, whose elements have a type of `datasets`."""

    element: str

    def _info(self):
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions and references, equally many",
            features=Features(dict.fromkeys(("predictions", "references"), Value(self.element))),
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

    element = "int64"

    def _compute(self, predictions, references):
        f1 = f1_score(references, predictions, average="macro", zero_division=0)
        return {"accuracy": float(accuracy_score(references, predictions)), "f1": float(f1)}


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
