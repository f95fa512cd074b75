"""What an evaluation leaves behind: figures to read and to go on with, answers, and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from shtopk.tasks import write_predictions
from shtopk.tasks.names import figure_as_text
from shtopk.training.experiment import Experiment

MOST_NAMED = 30  # classes whose names and counts are legible in a picture


def figures_as_text(results: Mapping[str, Any]) -> str:
    """The figures of an evaluation for a terminal: metrics with their intervals, and a line for each class."""
    intervals = results.get("intervals", {})
    lines = []
    for name, value in results["metrics"].items():
        bounds = ", ".join(figure_as_text(name, bound) for bound in intervals.get(name, ()))
        lines.append(f"{name:28}{_number(name, value)}" + (f"   [{bounds}]" if bounds else ""))
    if intervals:
        lines.append("In brackets: 95 % confidence intervals over documents.")
    if classes := results.get("classes"):
        width = max(12, *(len(name) for name in classes))
        chosen = any("threshold" in row for row in classes.values())
        head = f"{'class':{width}}{'precision':>11}{'recall':>9}{'f1':>9}{'documents':>11}"
        lines += ["", head + f"{'threshold':>11}" * chosen]
        lines += [
            f"{name:{width}}{row['precision']:11.3f}{row['recall']:9.3f}{row['f1']:9.3f}{row['documents']:11,}"
            + (f"{row['threshold']:11.3f}" if chosen else "")
            for name, row in classes.items()
        ]
    if baselines := results.get("baselines"):
        shown = [name for name in results["metrics"] if name in intervals]
        lines += ["", f"{'without a model':24}" + "".join(f"{name:>11}" for name in shown)]
        lines += [
            f"{name:24}" + "".join(f"{metrics[key]:11.3f}" for key in shown) for name, metrics in baselines.items()
        ]
    return "\n".join(lines)


def _number(name: str, value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else figure_as_text(name, value)


def draw_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str], path: Path) -> None:
    """Draw who is taken for whom: a row for each class, shaded by the share of its documents."""
    count = len(names)
    side = max(3.2, 1.4 + 0.42 * min(count, MOST_NAMED))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    counts = np.asarray(confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answered")
    axes.set_ylabel("true class")
    if count <= MOST_NAMED:  # parse_math: a dollar sign in a name is one
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        for i, row in enumerate(confusion):
            for j, n in enumerate(row):
                if n:
                    axes.text(j, i, f"{n:,}", ha="center", va="center", fontsize=9,
                              color="white" if shares[i][j] > 0.5 else "black")  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=130)


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write results.json, and after it confusion.png if there is a matrix. One of other results is removed."""
    picture = folder / "confusion.png"
    picture.unlink(missing_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if "confusion" in results:
        draw_confusion(results["confusion"], list(results["classes"]), picture)


def write_answers(experiment: Experiment, split: str, answers: np.ndarray | list) -> None:
    """Write predictions.jsonl into the output folder: a model's answers to a split (see `evaluation.predict`)."""
    task, documents, predictions = experiment.task, experiment.texts[split], experiment.predictions(answers)
    said = task.in_words(documents, predictions)
    true = task.in_words(documents, experiment.references(split))
    sureness = experiment.kind.sureness(experiment.model, answers, predictions)
    write_predictions(experiment.output, documents["text"], said, true, sureness)
