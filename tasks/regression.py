"""The record of a task with a number for each document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shtopk.integrations.reading import WHOLE
from shtopk.tasks.preprocess import encode_documents
from shtopk.tasks.table import joined
from shtopk.tasks.task import Task
from shtopk.tasks.word_baselines import number_baselines

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset


@dataclass(frozen=True)
class Regression(Task):
    """Documents and a number for each. The column "value" is float64."""

    target = "value"
    metrics = ("mse", "mae", "pearson", "spearman")
    selectors = metrics
    lower_is_better = frozenset({"mse", "mae"})
    shown = metrics

    def encode(self, tokenizer, texts, arguments, start=None, how=WHOLE):
        documents = encode_documents(tokenizer, texts, arguments.max_tokens, how, arguments.num_proc)
        return documents.rename_column("value", "labels")

    def decode(self, tokenizer, answers, thresholds=None) -> list[float]:
        return [float(number) for (number,) in answers]

    def compute_metrics(self, predictions, references) -> dict[str, float]:
        from shtopk.tasks.metrics import regression_metrics

        return regression_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[float]]:
        if "train" not in texts:
            return {}
        return number_baselines(texts["train"], joined(texts["test"]))
