"""Rows from anywhere to splits with a text and a label column."""

from collections.abc import Sequence
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from tasks.split import normalise, stratified_split

SHARES = {"test": 0.2, "validation": 0.1}


def pick(columns: Sequence[str], text_column: str, label_column: str, source: str) -> None:
    """Raise ValueError if a column is missing.

    Args:
        columns: those there are.
        text_column: the one with the documents.
        label_column: the one with their classes.
        source: what to call the data in the message.
    """
    for option, column in (("text_column", text_column), ("label_column", label_column)):
        if column not in columns:
            there = ", ".join(map(repr, columns)) or "none"
            raise ValueError(f"expected a column {column!r} in {source}, got {there}; choose one with --{option}")
    if text_column == label_column:
        raise ValueError(f"expected text_column and label_column to differ, got {text_column!r} for both")


def clean(texts: Sequence[Any], labels: Sequence[Any], source: str) -> tuple[list[str], list[str]]:
    """Texts as they are and labels as strings; ValueError names the first row that is neither."""
    if not texts:
        raise ValueError(f"expected documents in {source}, got none")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
        if not isinstance(text, str):
            raise ValueError(f"expected a text in document {row} of {source}, got {_say(text)}")
        if not isinstance(label, str | int):
            raise ValueError(
                f"expected a string or a whole number as label in document {row} of {source}, got {_say(label)}"
            )
        try:
            f"{text}{label}".encode()
        except UnicodeEncodeError:
            raise ValueError(f"expected valid Unicode in document {row} of {source}, got a lone surrogate") from None
    return list(texts), [str(label) for label in labels]


def assemble(
    splits: dict[str, tuple[list[str], list[str]]],
    *,
    sources: dict[str, str],
    order: Sequence[str] = (),
    seed: int = 0,
) -> DatasetDict:
    """Build train, validation and test; the classes are those of the training split.

    Args:
        splits: split -> texts and labels; "train" at least. From it are drawn, by class, the splits that are missing:
            a fifth for test, a tenth for validation. Texts that are equal up to whitespace stay together.
        sources: split -> what to call its data in a message.
        order: the classes in the order of their numbers, where it is known. Others are sorted, numbers as numbers.
        seed: draws the missing splits.

    Raises:
        ValueError: fewer than two classes, a label that train lacks, too few documents to split.
    """
    splits = dict(splits)
    missing = {name: share for name, share in SHARES.items() if name not in splits}
    if missing:
        texts, labels = splits["train"]
        rows = stratified_split(labels, [normalise(text) for text in texts], missing, seed=seed)
        for name, chosen in rows.items():
            splits[name] = [texts[i] for i in sorted(chosen)], [labels[i] for i in sorted(chosen)]
            if not chosen:
                raise ValueError(
                    f"expected enough documents of a class in {sources['train']} to draw a {name} split from, "
                    f"got {len(texts)} documents; give more of them, or a {name} split of its own"
                )
    names = _sorted(set(splits["train"][1]), order)
    if len(names) < 2:
        raise ValueError(f"expected at least two classes in {sources['train']}, got {', '.join(names)}")
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    data = {}
    for name in ("train", "validation", "test"):
        texts, labels = splits[name]
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise ValueError(
                f"expected the labels of {sources[name]} to occur in training ({_some(names)}), got {_some(unknown)}"
            )
        data[name] = Dataset.from_dict({"text": texts, "label": labels}, features)
    return DatasetDict(data)


def _sorted(labels: set[str], order: Sequence[str]) -> list[str]:
    if order:
        return [label for label in order if label in labels]
    if all(label.lstrip("-").isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _say(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.40} ({type(value).__name__})"
