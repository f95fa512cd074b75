"""Predictions to read: a file of all, and a page of the first ones beside their references."""

import json
from pathlib import Path

from datasets import Dataset

from shtopk.tasks.task import Task

SHOWN, LONGEST = 10, 600  # documents, and characters of each


def write_samples(folder: Path, split: Dataset, task: Task, predictions: list, baselines: dict[str, list]) -> None:
    """Write folder/predictions.jsonl, and for summaries folder/samples.md with the first documents.

    Args:
        split: documents, with the column of references.
        predictions: one for each document.
        baselines: name -> answers that need no model, one for each document.
    """
    references = split[task.target][:]
    lines = [json.dumps({"prediction": prediction, "reference": reference}, ensure_ascii=False)
             for prediction, reference in zip(predictions, references, strict=True)]  # fmt: skip
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if task.target != "summary":
        return
    parts = [f"# The first {SHOWN} test documents, not picked"]
    for i, text in enumerate(split["text"][:SHOWN]):
        cut = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"
        rows = {"reference": references[i], "model": predictions[i]}
        rows |= {name.replace("_", " "): answers[i] for name, answers in baselines.items()}
        bullets = "\n".join(f"- **{name}**: {' '.join(answer.split())}" for name, answer in rows.items())
        document = "\n".join(f"    {line}" for line in cut.splitlines())
        # Markdown lets HTML through.
        parts.append(f"## {i + 1}\n\n{bullets}\n\n{document}".replace("<", "&lt;"))
    (folder / "samples.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
