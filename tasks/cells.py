"""What a cell with several labels or with a number holds, and which kind of answer a column has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from shtopk.tasks.labels import read_label, shown


def kind_of_answers(values: Iterable[Any]) -> str:
    """The kind of answer that some cells of a column hold: "labels" if there is a list, "value" if there is a number
    with a fraction, else "label".

    Example:
        >>> kind_of_answers([["a"], []]), kind_of_answers([1, 2.5]), kind_of_answers(["2.5", 1])
        ('labels', 'value', 'label')
    """
    values = list(values)
    if any(isinstance(value, list | tuple) for value in values):
        return "labels"
    fractions = (isinstance(value, float | Decimal) and math.isfinite(value) and value % 1 for value in values)
    return "value" if any(fractions) else "label"


def are_indicators(values: Sequence[Any]) -> bool:
    """Whether cells with several labels hold 1 for each label that a document has, and 0 for each other one.

    Example:
        >>> are_indicators([[0, 1, 0], [0, 0, 0]]), are_indicators([[0, 1], [1, 0]]), are_indicators([[2], []])
        (True, False, False)
    """
    lists = [value for value in values if isinstance(value, list | tuple)]
    repeated = any(len(set(row)) < len(row) for row in lists if row and all(one in (0, 1) for one in row))
    return repeated and len({len(row) for row in lists}) == 1 and all(one in (0, 1) for row in lists for one in row)


def read_labels(value: Any, place: str, separator: str | None = None) -> list[str]:
    """The names of the labels in a cell, each once, in their order; perhaps none.

    Args:
        value: of the cell: a list of strings or whole numbers, or with a separator a text.
        place: where it stands, for messages.
        separator: what stands between the labels of a text; spaces around them do not count.

    Raises:
        ValueError: it is missing, or something else.

    Example:
        >>> read_labels(["a", "b ", "a"], "row 1"), read_labels("a; b;", "row 2", ";"), read_labels([], "row 3")
        (['a', 'b'], ['a', 'b'], [])
    """
    if isinstance(value, str):
        if separator is None:
            cure = "name what stands between the labels of a text with label_separator"
            raise ValueError(f"expected a list of labels in {place}, got {shown(value)}; {cure}")
        value = [one for one in value.split(separator) if one.strip()]
    if not isinstance(value, list | tuple):
        got = "; a document without labels has an empty list" if value is None else ""
        raise ValueError(f"expected a list of labels in {place}, got {shown(value)}{got}")
    return list(dict.fromkeys(read_label(one, place) for one in value))


def read_number(value: Any, place: str) -> float:
    """The number in a cell.

    Args:
        value: of the cell: a number, or a text that is one, as in CSV.
        place: where it stands, for messages.

    Raises:
        ValueError: it is missing, no number, or not finite.

    Example:
        >>> read_number(3, "row 1"), read_number(" 0.5 ", "row 2")
        (3.0, 0.5)
    """
    may_be = isinstance(value, str | int | float | Decimal) and not isinstance(value, bool) and "_" not in str(value)
    try:
        number = float(value) if may_be else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number in {place}, got {shown(value)}")
    return number
