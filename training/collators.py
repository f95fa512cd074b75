"""Batches of documents with any number of labels each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from shtopk.tasks.labels import indicators


@dataclass
class MultiLabelCollator(DataCollatorWithPadding):
    """Pads documents; their labels, lists of numbers, become rows of 0 and 1.

    Attributes:
        count: how many labels there are.
    """

    count: int = 0

    def __call__(self, features: Sequence[dict[str, Any]]) -> Any:
        batch = super().__call__([{k: v for k, v in row.items() if k != "labels"} for row in features])
        batch["labels"] = targets([row["labels"] for row in features], self.count)
        return batch


def targets(sets: Sequence[Sequence[int]], count: int) -> Tensor:
    """Sets of labels, numbered from 0 to count - 1, as [n, count] of 0 and 1."""
    return torch.from_numpy(indicators(sets, count)).float()
