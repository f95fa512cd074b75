"""Labels: what a cell holds, and the classes of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shtopk.tasks.records import some

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import ClassLabel, Dataset

NO_LABEL = ("", "nan", "NaN", "None", "<NA>")  # what pandas and Python write for a missing value


def is_missing(value: Any) -> bool:
    """Whether a cell holds no label: nothing, NaN, or a text that stands for one of them.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), " ", "nan", "None", "none", 0)]
        [True, True, True, True, True, False, False]
    """
    return value is None or value != value or (isinstance(value, str) and value.strip() in NO_LABEL)


def read_label(value: Any, place: str) -> str:
    """The name of a class. Spaces around it do not count.

    Args:
        value: of the cell: a string or a whole number.
        place: where it stands, for messages.

    Raises:
        ValueError: it is missing, or something else.

    Example:
        >>> read_label("sport ", "row 1"), read_label(3, "row 2")
        ('sport', '3')
    """
    if is_missing(value):
        got = "an empty text" if isinstance(value, str) and not value.strip() else shown(value)
        name = "; if it is the name of a class, rename it" if isinstance(value, str) and value.strip() else ""
        raise ValueError(f"expected a label in {place}, got {got}{name}")
    if not isinstance(value, str | int):
        raise ValueError(f"expected a string or a whole number as label in {place}, got {shown(value)}")
    return str(value).strip()


def classes(labels: Mapping[str, Iterable[str]], sources: Mapping[str, str], order: Sequence[str] = ()) -> ClassLabel:
    """The classes of the training split.

    Args:
        labels: {split: its different labels}.
        sources: {split: what a message calls its data}.
        order: the classes in the order of their numbers; empty: sorted, numbers as numbers.

    Raises:
        ValueError: there are fewer than two, or another split has one that training lacks.
    """
    names = _sorted(set(labels["train"]), order)
    if len(names) < 2:
        raise ValueError(f"expected at least two classes in {sources['train']}, got {', '.join(names)}")
    for split, found in labels.items():
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise ValueError(
                f"expected the labels of {sources[split]} to occur in training ({some(names)}), got {some(unknown)}"
            )
    from datasets import ClassLabel

    return ClassLabel(names=names)


def named(split: Dataset, column: str) -> Dataset:
    """The split with the names of classes in place of their numbers, if it has numbers."""
    from datasets import Features, Value

    names = getattr(split.features[column], "names", None)
    if names is None:
        return split
    features = Features({**split.features, column: Value("string")})
    return split.map(
        lambda batch: {column: [names[i] for i in batch[column]]}, batched=True, features=features, desc="name classes"
    )


def _sorted(labels: set[str], order: Sequence[str]) -> list[str]:
    if order:
        return [label for label in dict.fromkeys(order) if label in labels]
    if all(re.fullmatch("-?[0-9]{1,99}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def shown(value: Any) -> str:
    """A value as messages show it: its beginning and its type."""
    return "nothing" if value is None else f"{value!r:.40} ({type(value).__name__})"
