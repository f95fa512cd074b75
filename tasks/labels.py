"""Labels: what a cell holds, and the classes of a data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shtopk.tasks.records import some
from shtopk.tasks.table import each, rows_at_once, with_type

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset

NO_LABEL = ("", "nan", "NaN", "None", "<NA>")  # what pandas and Python write for a missing value


REGRESSION = "; numbers to predict are asked for with problem_type regression"
WHOLE = "; write classes as whole numbers or texts, or ask for them with problem_type single_label_classification"
SEVERAL = "; several labels a document are asked for with problem_type multi_label_classification"


def is_missing(value: Any) -> bool:
    """Whether a cell holds no label: nothing, NaN, or a text that stands for one of them.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), " ", "nan", "None", "none", 0)]
        [True, True, True, True, True, False, False]
    """
    return value is None or value != value or (isinstance(value, str) and value.strip() in NO_LABEL)


def read_label(value: Any, place: str, *, asked: bool = False) -> str:
    """The name of a class. Spaces around it do not count.

    Args:
        value: of the cell: a string or a whole number.
        place: where it stands, for messages.
        asked: classes were asked for by name, so 1.0, which pandas makes of 1 beside a missing value, is class 1.

    Raises:
        ValueError: it is missing, or something else.

    Example:
        >>> read_label("sport ", "row 1"), read_label(3, "row 2"), read_label(1.0, "row 3", asked=True)
        ('sport', '3', '1')
    """
    if is_missing(value):
        got = "an empty text" if isinstance(value, str) and not value.strip() else shown(value)
        name = "; if it is the name of a class, rename it" if isinstance(value, str) and value.strip() else ""
        raise ValueError(f"expected a label in {place}, got {got}{name}")
    if asked and is_whole(value):
        value = int(value)
    if not isinstance(value, str | int):
        hint = WHOLE * is_whole(value) + REGRESSION * isinstance(value, float) + SEVERAL * isinstance(value, list)
        raise ValueError(f"expected a string or a whole number as label in {place}, got {shown(value)}{hint}")
    return str(value).strip()


def is_whole(value: Any) -> bool:
    """Whether a value is a float without a fraction."""
    return isinstance(value, float) and value.is_integer()


def different_labels(split: Dataset, column: str) -> set[str]:
    """The labels in a column of names, or of lists of names."""
    if column == "labels":
        return {name for (names,) in each(split, column) for name in names}
    return set(split.unique(column))


def class_names(split: Dataset, column: str, source: str, order: Sequence[str] = ()) -> list[str]:
    """The names of the classes or labels of a training split, by their numbers.

    Args:
        split: with names.
        column: "label" or "labels".
        source: what a message calls the data.
        order: the classes in the order of their numbers; empty: sorted, numbers as numbers.

    Raises:
        ValueError: there are fewer than two classes, or no labels.
    """
    names = _sorted(different_labels(split, column), order)
    if len(names) < (1 if column == "labels" else 2):
        least = "labels" if column == "labels" else "at least two classes"
        raise ValueError(f"expected {least} in {source}, got {', '.join(names) or 'none'}")
    return names


def as_classes(
    split: Dataset, column: str, names: Sequence[str], source: str, *, drop: bool, expected: str, cure: str = ""
) -> Dataset:
    """A split with the numbers of classes or labels in place of their names.

    Args:
        split: with names.
        column: "label" or "labels".
        names: of the classes, by their numbers.
        source: what a message calls the data.
        drop: True: leave out documents with others, which a line in `info.description` counts. False: refuse them.
        expected: what a message says of names that are there.
        cure: what else it says to do.

    Raises:
        ValueError: there are others, or no document without them is left.
    """
    from datasets import ClassLabel, List

    kind = ClassLabel(names=list(names))
    unknown = sorted(different_labels(split, column) - set(names))
    if unknown and not drop:
        raise ValueError(f"expected {expected} ({some(names)}), got {some(unknown)}; "
                         f"drop_unknown_labels leaves such documents out{cure}")  # fmt: skip
    if unknown:
        allowed, before = set(names), len(split)
        rows = [i for i, (labels,) in enumerate(each(split, column))
                if allowed.issuperset(labels if column == "labels" else [labels])]  # fmt: skip
        if not rows:
            raise ValueError(f"expected documents in {source} whose labels are known ({some(names)}), got none")
        split = split.select(rows)
        left_out = f"{before - len(rows):,} documents of {source} left out"
        line = f"labels: {left_out}, whose labels ({some(unknown)}) are unknown"
        split.info.description = "\n".join(filter(None, (split.info.description, line)))
    return _mapped(split, column, List(kind), kind.str2int) if column == "labels" else with_type(split, column, kind)


def named(split: Dataset, column: str) -> Dataset:
    """The split with the names of classes or labels in place of their numbers, if it has numbers."""
    from datasets import List, Value

    if column == "labels" and hasattr(split.features[column].feature, "names"):
        names = split.features[column].feature.names
        rename, kind = (lambda labels: [names[i] for i in labels]), List(Value("string"))
    elif hasattr(split.features[column], "names"):
        names = split.features[column].names
        rename, kind = names.__getitem__, Value("string")
    else:
        return split
    return _mapped(split, column, kind, rename)


def indicators(sets: Sequence[Collection[int]], count: int) -> np.ndarray:
    """Sets of labels, numbered from 0 to count - 1, as booleans [n, count]."""
    rows = np.zeros((len(sets), count), dtype=bool)
    for row, labels in zip(rows, sets, strict=True):
        row[list(labels)] = True
    return rows


def _mapped(split: Dataset, column: str, kind: Any, change: Callable[[Any], Any]) -> Dataset:
    """The split with a column of another type, whose values are changed one by one."""
    features = split.features.copy()
    features[column] = kind
    return split.map(
        lambda batch: {column: list(map(change, batch[column]))}, batched=True, batch_size=rows_at_once(split),
        features=features, desc=f"change {column}",
    )  # fmt: skip


def _sorted(labels: set[str], order: Sequence[str]) -> list[str]:
    if order:
        return [label for label in dict.fromkeys(order) if label in labels]
    if all(re.fullmatch("-?[0-9]{1,99}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def shown(value: Any) -> str:
    """A value as messages show it: its beginning and its type."""
    return "nothing" if value is None else f"{value!r:.40} ({type(value).__name__})"
