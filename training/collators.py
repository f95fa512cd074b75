"""Batches of documents with any number of labels each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DataCollatorWithPadding


@dataclass
class MultiLabelCollator(DataCollatorWithPadding):
    """Pads documents; their labels, lists of numbers, become rows of 0 and 1.

    Attributes:
        count: how many labels there are.
    """

    count: int = 0

    def __call__(self, features: Sequence[dict[str, Any]]) -> Any:
        batch = super().__call__([{k: v for k, v in row.items() if k != "labels"} for row in features])
        batch["labels"] = torch.zeros(len(features), self.count)
        for row, document in zip(batch["labels"], features, strict=True):
            row[document["labels"]] = 1
        return batch
