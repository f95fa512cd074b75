"""From rows of any source to splits with the columns "text" and "label" or "summary"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.split import SHARES, SPLITS, normalise, stratified_split

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import ClassLabel, DatasetDict


class Answers(NamedTuple):
    """The answers in a column: their types, what a message calls them, and whether they are classes."""

    types: type | UnionType
    wanted: str
    are_classes: bool


ANSWERS = {
    "label": Answers(str | int, "string or a whole number", are_classes=True),
    "summary": Answers(str, "text", are_classes=False),
}


def pick(columns: Sequence[str], arguments: DataArguments, source: str) -> str:
    """The name of the column with labels or summaries.

    Args:
        source: what a message calls the data.

    Raises:
        ValueError: this column, or that of the texts, is not among the columns.
    """
    option = f"{arguments.answer}_column"
    target = getattr(arguments, option)
    for name, column in (("text_column", arguments.text_column), (option, target)):
        if column not in columns:
            names = some([column if len(column) <= 40 else f"{column[:40]} …" for column in columns]) or "none"
            raise ValueError(f"expected a column {column!r} in {source}, got {names}; choose one with --{name}")
    if arguments.text_column == target:
        raise ValueError(f"expected text_column and {option} to differ, got {target!r} for both")
    return target


def clean(texts: Sequence[Any], answers: Sequence[Any], answer: str, source: str) -> tuple[list[str], list[str]]:
    """The texts as they are, and the answers as strings.

    Args:
        answer: their kind, "label" (non-empty strings or whole numbers) or "summary" (non-empty strings).
        source: what a message calls the data.

    Raises:
        ValueError: a row without a valid text or answer; the message names the first one.
    """
    types, wanted, _ = ANSWERS[answer]
    if not texts:
        raise ValueError(f"expected documents in {source}, got none")
    for row, (text, value) in enumerate(zip(texts, answers, strict=True), 1):
        if not isinstance(text, str):
            raise ValueError(f"expected a text in document {row} of {source}, got {_shown(text)}")
        if not isinstance(value, types):
            raise ValueError(f"expected a {wanted} as {answer} in document {row} of {source}, got {_shown(value)}")
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"expected a {answer} in document {row} of {source}, got an empty text")
        try:
            f"{text}{value}".encode()
        except UnicodeEncodeError:
            raise ValueError(f"expected valid Unicode in document {row} of {source}, got a lone surrogate") from None
    return list(texts), [str(value) for value in answers]


def assemble(
    splits: dict[str, tuple[list[str], list[str]]],
    answer: str,
    *,
    sources: dict[str, str],
    order: Sequence[str] = (),
    seed: int = 0,
) -> DatasetDict:
    """Build train, validation and test. The classes are those of the training split.

    Args:
        splits: {split: (texts, answers)}, "train" at least. Missing ones are drawn from it, class by class: a fifth
            for the test, a tenth for validation. Texts that differ only in whitespace stay together.
        answer: "label" or "summary".
        sources: {split: what a message calls its data}.
        order: the classes in the order of their numbers; empty: sorted, numbers as numbers.
        seed: of the splits that are drawn.

    Raises:
        ValueError: fewer than two classes, a label that train lacks, or too few documents to split.
    """
    are_classes, splits = ANSWERS[answer].are_classes, dict(splits)
    missing = {name: share for name, share in SHARES.items() if name not in splits}
    if missing:
        texts, answers = splits["train"]
        classes = answers if are_classes else [""] * len(answers)
        keys = [normalise(text) for text in texts]
        rows = stratified_split(classes, keys, missing, seed=seed)
        for name, chosen in rows.items():
            splits[name] = [texts[i] for i in sorted(chosen)], [answers[i] for i in sorted(chosen)]
            if not chosen:
                of_class = "of a class " if are_classes else ""
                different = len(set(keys))
                of_them = "" if different == len(texts) else f", {different} of them different"
                raise ValueError(
                    f"expected enough documents {of_class}in {sources['train']} to draw a {name} split from, "
                    f"got {len(texts)} documents{of_them}; give more of them, or a {name} split of its own"
                )
    kind = _classes(splits, sources, order) if are_classes else None
    return to_datasets({name: list(zip(*splits[name], strict=True)) for name in SPLITS}, answer, kind)


def to_datasets(splits: Mapping[str, Sequence[tuple]], answer: str, kind: Any = None) -> DatasetDict:
    """Splits of pairs (text, answer) as a DatasetDict with the columns "text" and `answer`.

    Args:
        kind: the type of the answers; None: text.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    data, features = DatasetDict(), Features({"text": Value("string"), answer: kind or Value("string")})
    for name, rows in splits.items():
        columns = {"text": [text for text, _ in rows], answer: [value for _, value in rows]}
        data[name] = Dataset.from_dict(columns, features)
    return data


def _classes(splits: dict, sources: dict[str, str], order: Sequence[str]) -> ClassLabel:
    """The classes of the training split. Raises ValueError if another split has a class that it lacks."""
    names = _sorted(set(splits["train"][1]), order)
    if len(names) < 2:
        raise ValueError(f"expected at least two classes in {sources['train']}, got {', '.join(names)}")
    for name, (_, labels) in splits.items():
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise ValueError(
                f"expected the labels of {sources[name]} to occur in training ({some(names)}), got {some(unknown)}"
            )
    from datasets import ClassLabel

    return ClassLabel(names=names)


def _sorted(labels: set[str], order: Sequence[str]) -> list[str]:
    if order:
        return [label for label in order if label in labels]
    if all(re.fullmatch("-?[0-9]{1,99}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def some(names: Sequence[str]) -> str:
    """The first ten of the names, in quotes, and how many more there are."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.40} ({type(value).__name__})"
