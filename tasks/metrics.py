"""Accuracy and macro-F1 through `evaluate`, computed here: the published metric scripts would need the hub."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class _LabelMetric(evaluate.Metric):
    """A metric of predicted and true labels that scikit-learn computes."""

    def _info(self):
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description="predictions and references: lists of class indices",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _download_and_prepare(self, dl_manager):
        """Nothing to download."""


class Accuracy(_LabelMetric):
    """Share of the documents whose class was predicted, in [0, 1]."""

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_LabelMetric):
    """F1 of each class that occurs, averaged with equal weight, in [0, 1]."""

    def _compute(self, predictions, references):
        return {"f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


def classification_metrics(predictions: list[int], references: list[int]) -> dict[str, float]:
    """Accuracy and macro-F1 of predicted class indices.

    Example:
        >>> classification_metrics([0, 1, 1, 1], [0, 0, 1, 1])
        {'accuracy': 0.75, 'f1': 0.7333333333333334}
    """
    metrics = evaluate.combine([Accuracy(keep_in_memory=True), MacroF1(keep_in_memory=True)])
    return metrics.compute(predictions=predictions, references=references)
