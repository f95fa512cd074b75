"""The record of a task with any number of labels for each document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shtopk.integrations.reading import WHOLE
from shtopk.tasks.preprocess import encode_documents
from shtopk.tasks.table import joined
from shtopk.tasks.task import Task
from shtopk.tasks.thresholds import HOLDS
from shtopk.tasks.word_baselines import label_baselines

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset


@dataclass(frozen=True)
class MultiLabelClassification(Task):
    """Documents with any number of labels. The column "labels" is a list of ClassLabel."""

    target = "labels"
    metrics = ("f1_micro", "f1", "accuracy")
    selectors = metrics
    shown = metrics

    def encode(self, tokenizer, texts, arguments, start=None, how=WHOLE):
        return encode_documents(tokenizer, texts, arguments.max_tokens, how, arguments.num_proc)

    def decode(self, tokenizer, answers, thresholds=None) -> list[list[int]]:
        """The numbers of the labels that hold for each document, the likeliest first."""
        from scipy.special import expit  # late: it takes long to import

        logits = np.asarray(answers, dtype=np.float32)
        holds = expit(logits) >= np.asarray(HOLDS if thresholds is None else thresholds)
        ranked = np.argsort(-logits, axis=1, kind="stable")
        return [order[row[order]].tolist() for order, row in zip(ranked, holds, strict=True)]

    def in_words(self, split: Dataset, answers: list[list[int]]) -> list[list[str]]:
        names = split.features[self.target].feature.names
        return [[names[i] for i in labels] for labels in answers]

    def compute_metrics(self, predictions, references) -> dict[str, float]:
        from shtopk.tasks.metrics import multi_label_metrics

        return multi_label_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[list[int]]]:
        if "train" not in texts:
            return {}
        return label_baselines(texts["train"], joined(texts["test"]))
