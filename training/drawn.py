"""Whether a split that is drawn from the training's file is still the one that the training drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from shtopk.tasks import DataArguments
from shtopk.tasks.task import sample
from shtopk.training.provenance import hash_of
from shtopk.training.run_folder import ORIGIN

READ_BY = ("train_file", "text_column", "text_separator", "text_pair_column", "label_column", "label_separator",
           "summary_column", "prompt_column", "completion_column", "drop_unknown_labels", "data_seed")  # fmt: skip


def check_drawn(checkpoint: Path, data: DataArguments, name: str, split: Dataset, target: str) -> None:
    """Check that a split without a file of its own holds the documents that the training's had.

    If the file has changed since, the split is drawn anew from all of it, from what was trained on, too. Nothing is
    checked where it is not the training's file, is read in another way, or the training left no run.json.

    Args:
        checkpoint: its folder, of a run or one of the run's checkpoints.
        data: how the split is read.
        name: of the split.
        split: all of it, as it is evaluated.
        target: the column of answers.

    Raises:
        ValueError: it holds others.
    """
    path = next((folder / ORIGIN for folder in (checkpoint, checkpoint.parent.parent) if (folder / ORIGIN).is_file()),
                None)  # fmt: skip
    if path is None or data.train_file is None or getattr(data, f"{name}_file", None) is not None:
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    before: dict[str, Any] = record.get("arguments", {})
    then = record.get("data", {}).get(name)
    if then is None or any(before.get(field) != getattr(data, field) for field in READ_BY):
        return
    limit = before.get("max_train_samples" if name == "train" else "max_eval_samples")
    if data.max_eval_samples not in (None, limit):
        return
    if hash_of(sample(split, limit, data.data_seed), target) != then["sha256"]:
        raise ValueError(f"{data.train_file} is not what it was in training: its {name} split is drawn anew, and may "
                         "hold documents that were trained on; give others with --test_file")  # fmt: skip
