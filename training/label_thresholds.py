"""Thresholds of a multi-label classifier, chosen on the validation split and saved with its configuration."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from shtopk.models.answers import probabilities
from shtopk.tasks.thresholds import best_thresholds
from shtopk.training.evaluation import predict
from shtopk.training.run import Run
from shtopk.training.whole import write_whole

CONFIG = "config.json"


def choose_thresholds(run: Run) -> dict[str, float]:
    """Give each label of a run's model the threshold that is best on the validation split. Prints what it brings.

    The model answers with them from now on; they are not saved yet.

    Args:
        run: with the weights to choose for.

    Returns:
        {label: threshold in (0, 1)}.
    """
    task, config, references = run.task, run.model.config, run.references("validation")
    answers = predict(run, "validation", "choose thresholds")
    before = task.compute_metrics(run.predictions(answers), references)
    config.label_thresholds = best_thresholds(probabilities(torch.as_tensor(answers), config).numpy(), references)
    after = task.compute_metrics(run.predictions(answers), references)
    if run.accelerator.is_main_process:
        print(f"thresholds chosen on validation: {task.in_short(after)}; with 0.5: {task.in_short(before)}")
    return {config.id2label[i]: threshold for i, threshold in enumerate(config.label_thresholds)}


def save_thresholds(thresholds: dict[str, float], folder: Path) -> None:
    """Write thresholds, one for each label in order, into the configuration of a saved model."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) | {"label_thresholds": list(thresholds.values())}
    write_whole(path, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
