"""From rows to the texts that a model answers, and from its answers to lines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shtopk.tasks.columns import Columns
from shtopk.tasks.records import Broken
from shtopk.tasks.streams import Row, plain, rows
from shtopk.training.console import tell

if TYPE_CHECKING:  # late: it takes long to import
    from shtopk.models.prediction import Prediction

DIGITS = 6  # of probabilities and weights
FIELDS = ("prediction", "probability", "probabilities", "kept")  # of a line, besides the columns to keep


class Source:
    """The documents of files and standard input, as a model asks for them.

    Args:
        files: paths, or "-", as `rows` takes them.
        columns: what to read of a row.
        done: how many of the first documents are answered already.
        last: the last line that was written for them, {} if there is none.
        lines: what standard input holds, see `rows`.
        skip: True: report broken rows and leave them out. False: the first one ends the documents.

    Attributes:
        waiting: rows that the model was given and has not answered yet.
        problem: why the documents ended early; None if they did not.
        skipped: how many broken rows were left out.
    """

    def __init__(
        self,
        files: Sequence[str],
        columns: Columns,
        *,
        done: int = 0,
        last: Mapping[str, Any] = MappingProxyType({}),
        lines: str = "txt",
        skip: bool = False,
    ):
        self.files, self.columns, self.done, self.last, self.lines, self.skip = files, columns, done, last, lines, skip
        self.waiting: deque[Row] = deque()
        self.problem: str | None = None
        self.skipped = 0

    def texts(self) -> Iterator[str | tuple[str, str] | None]:
        """Yield the text, or the pair, of each row without an answer, and None where there is no more for now.

        A problem ends it.
        """
        answered = 0
        try:
            for row in (row for file in self.files for row in rows(file, self.columns, self.lines)):
                if isinstance(row, Broken):
                    if not self.skip:
                        raise ValueError(row.reason)
                    self.skipped += 1
                    if answered >= self.done:  # else it was told before
                        tell(f"skipped: {row.reason}")
                elif row is None:
                    yield None
                elif answered < self.done:
                    answered += 1
                    if answered == self.done:
                        self._check_same(row)
                else:
                    self.waiting.append(row)
                    yield row.text if row.pair is None else (row.text, row.pair)
            if answered < self.done:
                raise ValueError(f"expected the {self.done:,} documents that the output answers to, or more, got "
                                 f"{answered:,}; is it the same input?")  # fmt: skip
        except ValueError as error:
            self.problem = str(error)

    def _check_same(self, row: Row) -> None:
        """Raise ValueError if the last line there belongs to another row, as far as the columns to keep tell."""
        if others := [name for name in self.last if name not in (*FIELDS, *self.columns.keep)]:
            raise ValueError(f"expected to keep the columns that the output has, but it has {others[0]!r} as well; "
                             "is it the same input, and the same --keep?")  # fmt: skip
        for name in self.columns.keep:
            if self.last.get(name) != plain(row.kept.get(name)):
                raise ValueError(f"expected the documents that the output answers to, but its last line has another "
                                 f"{name!r} than {row.place}; is it the same input?")  # fmt: skip


def fields_of(answer: Prediction, *, probabilities: bool = False) -> dict[str, Any]:
    """The fields of an answer's line, some of `FIELDS`.

    Args:
        probabilities: add the probability of every class.

    Raises:
        ValueError: a probability of several labels is no finite number.
    """
    fields: dict[str, Any] = {"prediction": answer.prediction}
    if answer.probability is not None:
        fields["probability"] = round(answer.probability, DIGITS)
    elif answer.labels is not None and answer.probabilities is not None:
        if not all(map(math.isfinite, answer.probabilities.values())):  # no label reaches its threshold by NaN
            raise ValueError("expected probabilities that are finite numbers")
        fields["probability"] = [round(answer.probabilities[label], DIGITS) for label in answer.labels]
    if probabilities and answer.probabilities is not None:
        fields["probabilities"] = {name: round(value, DIGITS) for name, value in answer.probabilities.items()}
    if answer.kept is not None:
        fields["kept"] = [token._asdict() | {"weight": round(token.weight, DIGITS)} for token in answer.kept]
    return fields
