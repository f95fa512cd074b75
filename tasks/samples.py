"""A model's answers, to read: every prediction, and a page of the first summaries beside their references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset

SHOWN, LONGEST = 10, 600  # documents, and characters of each


def write_predictions(folder: Path, references: list, predictions: list) -> None:
    """Write folder/predictions.jsonl, a line for each document."""
    lines = [json.dumps({"prediction": prediction, "reference": reference}, ensure_ascii=False)
             for prediction, reference in zip(predictions, references, strict=True)]  # fmt: skip
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_samples(folder: Path, split: Dataset, predictions: list[str], baselines: Mapping[str, list[str]]) -> None:
    """Write folder/samples.md with the first documents of a split, not picked, and their summaries: the true ones,
    the predictions, and those of baselines by name.
    """
    references = split["summary"][:]
    parts = [f"# The first {SHOWN} test documents, not picked"]
    for i, text in enumerate(split["text"][:SHOWN]):
        cut = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"
        rows = {"reference": references[i], "model": predictions[i]}
        rows |= {name.replace("_", " "): answers[i] for name, answers in baselines.items()}
        listed = "\n".join(f"- **{name}**: {' '.join(answer.split())}" for name, answer in rows.items())
        document = "\n".join(f"    {line}" for line in cut.splitlines())
        # Markdown lets HTML through.
        parts.append(f"## {i + 1}\n\n{listed}\n\n{document}".replace("<", "&lt;"))
    (folder / "samples.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
