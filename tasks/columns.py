"""Which columns of a row are read, and what becomes of them: one text or two, and an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.labels import read_label, shown
from shtopk.tasks.records import Broken, Record, lacking

TEXT, PAIR = "text", "text_pair"  # the columns of texts in every split
SPACES = "spaces"  # counted in `documents`


def read_summary(value: Any, place: str) -> str:
    """A summary. Raises ValueError if it is empty or no text."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text as summary in {place}, got {shown(value)}")
    if not value.strip():
        raise ValueError(f"expected a summary in {place}, got an empty text")
    return value


ANSWERS: dict[str, Callable[[Any, str], str]] = {"label": read_label, "summary": read_summary}


@dataclass(frozen=True)
class Columns:
    """The columns to read of a row.

    Attributes:
        text: one or several; the texts of several are joined.
        separator: stands between them.
        pair: the column of the second text, where documents are pairs.
        answer: the column of labels or summaries; "": not read.
        kind: "label" or "summary", what `answer` holds.
        keep: columns to pass through.
    """

    text: tuple[str, ...] = (TEXT,)
    separator: str = " "
    pair: str | None = None
    answer: str = ""
    kind: str = "label"
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: DataArguments) -> Columns:
        """The columns that the data's arguments name.

        Raises:
            ValueError: two of them name one column.
        """
        option = f"{arguments.answer}_column"
        answer = getattr(arguments, option)
        columns = cls(arguments.text_columns, arguments.text_separator, arguments.text_pair_column,
                      answer, arguments.answer)  # fmt: skip
        named = {"text_column": columns.text, "text_pair_column": (columns.pair,), option: (answer,)}
        first: dict[str, str] = {}
        for name, column in ((name, column) for name, group in named.items() for column in group if column):
            if column in first:
                both = f"{first[column]} and {name} to differ" if first[column] != name else f"{name} to name it once"
                raise ValueError(f"expected {both}, got {column!r} twice")
            first[column] = name
        return columns

    @property
    def wanted(self) -> dict[str, str]:
        """{column: how to choose another one}, for `records`."""
        options = dict.fromkeys(self.text, "text_column")
        options |= {self.pair: "text_pair_column"} if self.pair else {}
        options |= {self.answer: f"{self.kind}_column"} if self.answer else {}
        return {name: f"choose one with --{option}" for name, option in options.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of what `read` returns."""
        return tuple(filter(None, (TEXT, PAIR if self.pair else "", self.kind if self.answer else "")))

    def read(self, fields: Mapping[str, Any], place: str) -> dict[str, str]:
        """The texts and the answer of a row, as "text", "text_pair" and "label" or "summary".

        Raises:
            ValueError: one of them is missing, of another type, or no Unicode.

        Example:
            >>> Columns(("title", "body"), ": ").read({"title": "Late", "body": "A goal."}, "row 1")
            {'text': 'Late: A goal.'}
        """
        row = {TEXT: self._joined(fields, place)}
        if self.pair is not None:
            row[PAIR] = _text(fields.get(self.pair), place, f"text as {self.pair}")
        if self.answer:
            row[self.kind] = ANSWERS[self.kind](fields.get(self.answer), place)
        try:
            "".join(row.values()).encode()
        except UnicodeEncodeError:
            raise ValueError(f"expected valid Unicode in {place}, got a lone surrogate") from None
        return row

    def _joined(self, fields: Mapping[str, Any], place: str) -> str:
        if len(self.text) == 1:
            return _text(fields.get(self.text[0]), place, "text")
        given = {name: fields.get(name) for name in self.text if fields.get(name) is not None}
        texts = [_text(value, place, f"text as {name}") for name, value in given.items()]
        if not texts:
            raise ValueError(f"expected a text in {place}, got nothing in {', '.join(self.text)}")
        return self.separator.join(texts)


def _text(value: Any, place: str, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a {what} in {place}, got {shown(value)}")
    return value


def documents(
    records: Iterable[Record | Broken], columns: Columns, source: str, counts: Counter[str] | None = None
) -> Iterator[dict[str, str]]:
    """Yield the texts and answer of each record, see `Columns.read`.

    Args:
        source: what a message calls the data.
        counts: gets the number of labels with spaces around them, as "spaces".

    Raises:
        ValueError: no records, a broken one, one without a valid text or answer (the message gives its number), or
            no record has a column.
    """
    number, seen, records = 0, set[str](), iter(records)
    for record in records:
        if isinstance(record, Broken):
            raise ValueError(record.reason)
        number += 1
        for column, cure in columns.wanted.items():
            if column not in record.fields and column not in seen:
                seen |= record.fields.keys()
                others = dict.fromkeys(name for one in records if isinstance(one, Record) for name in one.fields)
                names = list(dict.fromkeys(record.fields) | others)
                if column not in names:
                    raise ValueError(lacking(column, source, names, cure))
        seen |= record.fields.keys()
        row = columns.read(record.fields, f"document {number} of {source}")
        if counts is not None and columns.kind == "label" and str(record.fields.get(columns.answer)) != row["label"]:
            counts[SPACES] += 1
        yield row
    if not number:
        raise ValueError(f"expected documents in {source}, got none")
