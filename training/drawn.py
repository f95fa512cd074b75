"""Whether a split that is drawn from the training's data is still the one that the training drew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from shtopk.tasks import DataArguments
from shtopk.training.console import tell
from shtopk.training.provenance import hash_of
from shtopk.training.run_folder import ORIGIN

SOURCES = {"files": "train_file", "hub": "dataset_name"}  # task -> the field that names what splits are drawn from
READ_BY = ("data_seed", "dataset_config", "dataset_revision", "validation_file", "test_file", "text_column",
           "text_separator", "text_pair_column", "label_column", "label_separator", "summary_column", "prompt_column",
           "completion_column", "drop_unknown_labels")  # fmt: skip


def check_drawn(
    checkpoint: Path, data: DataArguments, name: str, target: str, read: Callable[[int | None], Dataset]
) -> None:
    """Check that a split that does not lie by itself holds the documents that the training's had.

    If the data has changed since, or is read in another way, the split is drawn anew from all of it, from what was
    trained on, too. Where it is drawn from other data than the training's, a line on stderr says so. Nothing is
    checked where the training left no run.json.

    Args:
        checkpoint: its folder, of a run or one of the run's checkpoints.
        data: how the split is read.
        name: of the split.
        target: the column of answers.
        read: at most so many documents of the split, as they are evaluated.

    Raises:
        ValueError: it holds others.
    """
    path = next((folder / ORIGIN for folder in (checkpoint, checkpoint.parent.parent) if (folder / ORIGIN).is_file()),
                None)  # fmt: skip
    source = getattr(data, SOURCES[data.task], None) if data.task in SOURCES else None
    if path is None or source is None:
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    before: dict[str, Any] = record.get("arguments", {})
    then, trained_on = record.get("data", {}).get(name), before.get(SOURCES[str(data.task)])
    if then is None or trained_on is None:
        return
    limit = before.get("max_train_samples" if name == "train" else "max_eval_samples")
    if hash_of(read(limit), target) == then["sha256"]:
        return
    if not _same(trained_on, source):
        tell(f"the {name} split is drawn from {source}, and not from {trained_on} as in training; what both hold may "
             "have been trained on")  # fmt: skip
        return
    drawn = f"its {name} split is drawn anew, and may hold documents that were trained on"
    for field in READ_BY:
        if field in before and before[field] != (now := getattr(data, field)):
            raise ValueError(f"{field} was {before[field]} in training of {source}, and is {now}: {drawn}; leave it "
                             "as it was, or give other documents with --test_file")  # fmt: skip
    raise ValueError(f"{source} is not what it was in training: {drawn}; give others with --test_file")


def _same(one: str, other: str) -> bool:
    """Whether two names are of the same file, folder or data set on the hub, however they are written."""
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))
