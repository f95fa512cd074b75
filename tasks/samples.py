"""A model's answers to read: every prediction, and a page of the first texts it wrote beside their references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset

SHOWN, LONGEST = 10, 600  # documents, and characters of each
BEGINNING = 100  # characters of a document in a line of predictions.jsonl


def write_predictions(
    folder: Path,
    texts: Iterable[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    probabilities: Sequence[float] | Sequence[Sequence[float]] | None = None,
) -> None:
    """Write folder/predictions.jsonl: a line of JSON for each document of a split, in their order.

    A line has `row`, the document's place in the split from 0 on; `text`, its beginning (see `beginning`);
    `prediction` and `reference`; and with probabilities `probability`, rounded to 6 digits, one for each label that is
    predicted.

    Args:
        folder: it is there already.
        texts: the documents.
        predictions: names of classes, lists of names of labels, numbers, or summaries.
        references: the true ones.
        probabilities: of the predicted classes or labels, in [0, 1]; None: left out.
    """
    rows = zip(texts, predictions, references, strict=True)
    lines: list[dict[str, Any]] = [
        {"row": i, "text": beginning(text), "prediction": prediction, "reference": reference}
        for i, (text, prediction, reference) in enumerate(rows)
    ]
    if probabilities is not None:
        lines = [line | {"probability": _rounded(p)} for line, p in zip(lines, probabilities, strict=True)]
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(written, encoding="utf-8")


def _rounded(probability: Any) -> float | list[float]:
    return round(probability, 6) if isinstance(probability, float) else [round(p, 6) for p in probability]


def beginning(text: str, longest: int = BEGINNING) -> str:
    r"""The start of a text in one line of at most so many characters. Whitespace becomes single spaces, a cut ends
    with "…".

    Example:
        >>> beginning("  One\n\ntwo three", longest=8), beginning("One two", longest=8)
        ('One two…', 'One two')
    """
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def write_samples(folder: Path, split: Dataset, predictions: list[str], baselines: Mapping[str, list[str]]) -> None:
    """Write folder/samples.md: the first documents of a split, not picked, with their summaries.

    The true summary of each stands beside the prediction and the baselines. Rows have the numbers of
    predictions.jsonl.

    Args:
        folder: it is there already.
        split: with the columns "text" and "summary"; or "text", of which the end is shown, and "completion".
        predictions: a summary or completion for each document.
        baselines: {name: likewise}.
    """
    prompts = "completion" in split.column_names
    references = split["completion" if prompts else "summary"][:]
    parts = [f"# The first {SHOWN} test documents, not picked"]
    for i, text in enumerate(split["text"][:SHOWN]):
        cut = text if len(text) <= LONGEST else _end(text) if prompts else text[:LONGEST].rsplit(" ", 1)[0] + " …"
        rows = {"reference": references[i], "model": predictions[i]}
        rows |= {name.replace("_", " "): answers[i] for name, answers in baselines.items()}
        listed = "\n".join(f"- **{name}**: {' '.join(answer.split())}" for name, answer in rows.items())
        document = "\n".join(f"    {line}" for line in cut.splitlines())
        # Markdown lets HTML through.
        parts.append(f"## Row {i}\n\n{listed}\n\n{document}".replace("<", "&lt;"))
    (folder / "samples.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _end(text: str) -> str:
    return "… " + text[-LONGEST:].split(" ", 1)[-1]
