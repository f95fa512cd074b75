"""The README.md that is saved beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

SNIPPET = """```python
from transformers import pipeline

classify = pipeline("text-classification", model="{folder}", trust_remote_code=True)
classify("Shares rose sharply after the bank raised its forecast.")
```"""


def write_model_card(folder: Path, *, base_model: str, data: str, licence: str, results: dict) -> None:
    """Write folder/README.md: what the model is, its metrics and command, and how to use it."""
    metrics = {name: value for name, value in results.items() if name in ("test_accuracy", "test_f1")}
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    card = f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [shtopk, token-pooling]
---
# Classifier with trainable token pooling

An encoder ({base_model}) whose token vectors are pooled to k by `{results["arguments"]["operator"]}` top-k
(k = {results["arguments"]["k"]}), and a linear classifier over their mean. Needs `pip install shtopk transformers`;
the model's code is in this folder, hence `trust_remote_code`.

{SNIPPET.format(folder=folder.as_posix())}

Trained and tested on: {data}. Licence of the data: {licence}.

| metric (test split, {results["test_documents"]} documents) | value |
|---|---|
{rows}

Command: `{results["command"]}`
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
