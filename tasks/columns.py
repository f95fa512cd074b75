"""Which columns of a row are read, and what becomes of them: one text or two, and an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.cells import are_indicators, kind_of_answers, read_labels, read_number
from shtopk.tasks.labels import read_label, shown
from shtopk.tasks.records import Broken, Record, lacking

TEXT, PAIR = "text", "text_pair"  # the columns of texts in every split
SPACES = "spaces"  # counted in `documents`
FIRST = 100  # rows that say what kind of answer a column holds


def read_summary(value: Any, place: str) -> str:
    """A summary. Raises ValueError if it is empty or no text."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text as summary in {place}, got {shown(value)}")
    if not value.strip():
        raise ValueError(f"expected a summary in {place}, got an empty text")
    return value


def read_completion(value: Any, place: str) -> str:
    """What follows a prompt. Raises ValueError if it is empty or no text."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text as completion in {place}, got {shown(value)}{chat(value)}")
    if not value.strip():
        raise ValueError(f"expected a completion in {place}, got an empty text")
    return value


def chat(value: Any) -> str:
    """What to do about messages where a text is expected; "" if it is none."""
    found = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    return "; turn chat messages into texts before, with the tokenizer's apply_chat_template" * bool(found)


ANSWERS: dict[str, Callable[..., Any]] = {
    "label": read_label,
    "labels": read_labels,
    "value": read_number,
    "summary": read_summary,
    "completion": read_completion,
}


@dataclass(frozen=True)
class Columns:
    """The columns to read of a row.

    Attributes:
        text: one or several; the texts of several are joined.
        separator: stands between them.
        pair: the column of the second text, where documents are pairs.
        answer: the column of answers; "": not read.
        kind: what `answer` holds: "label", "labels", "value", "summary" or "completion"; None: see `settled`.
        label_separator: what stands between labels in a text.
        keep: columns to pass through.
        asked: the kind was asked for, and not found in the data.
    """

    text: tuple[str, ...] = (TEXT,)
    separator: str = " "
    pair: str | None = None
    answer: str = ""
    kind: str | None = "label"
    label_separator: str | None = None
    keep: tuple[str, ...] = ()
    asked: bool = True

    @classmethod
    def of(cls, arguments: DataArguments) -> Columns:
        """The columns that the data's arguments name.

        Raises:
            ValueError: two of them name one column.
        """
        option = arguments.answer_field
        answer = getattr(arguments, option)
        columns = cls(arguments.text_columns, arguments.text_separator, arguments.text_pair_column,
                      answer, arguments.answer, arguments.label_separator)  # fmt: skip
        texts = "prompt_column" if option == "completion_column" else "text_column"
        named = {texts: columns.text, "text_pair_column": (columns.pair,), option: (answer,)}
        first: dict[str, str] = {}
        for name, column in ((name, column) for name, group in named.items() for column in group if column):
            if column in first:
                both = f"{first[column]} and {name} to differ" if first[column] != name else f"{name} to name it once"
                raise ValueError(f"expected {both}, got {column!r} twice")
            first[column] = name
        return columns

    def settled(self, records: Iterable[Record | Broken]) -> Columns:
        """The same with the kind of answer that the first of these records have, if it is open.

        Raises:
            ValueError: they tell of each label whether it holds, in place of naming those that do.
        """
        if self.kind not in (None, "labels") or not self.answer:
            return self
        first = islice((record for record in records if isinstance(record, Record)), FIRST)
        answers = [record.fields.get(self.answer) for record in first]
        settled = self if self.kind else replace(self, kind=kind_of_answers(answers), asked=False)
        if settled.kind == "labels" and are_indicators(answers):
            row = next(answer for answer in answers if isinstance(answer, list | tuple))
            raise ValueError(f"expected the labels that hold in each row of {self.answer!r}, got rows of 0 and 1 such "
                             f"as {row!r:.60}; write the labels' names in their place")  # fmt: skip
        return settled

    @property
    def wanted(self) -> dict[str, str]:
        """{column: how to choose another one}, for `records`."""
        options = dict.fromkeys(self.text, "prompt_column" if self.kind == "completion" else "text_column")
        options |= {self.pair: "text_pair_column"} if self.pair else {}
        by_kind = {"summary": "summary_column", "completion": "completion_column"}
        options |= {self.answer: by_kind.get(str(self.kind), "label_column")} if self.answer else {}
        return {name: f"choose one with --{option}" for name, option in options.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of what `read` returns."""
        return tuple(filter(None, (TEXT, PAIR if self.pair else "", self.kind if self.answer else "")))

    def read(self, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The texts and the answer of a row, as "text", "text_pair" and the kind of answer.

        Raises:
            ValueError: one of them is missing, of another type, or no Unicode.

        Example:
            >>> Columns(("title", "body"), ": ").read({"title": "Late", "body": "A goal."}, "row 1")
            {'text': 'Late: A goal.'}
        """
        row: dict[str, Any] = {TEXT: self._joined(fields, place)}
        if self.kind == "completion" and not row[TEXT].strip():
            raise ValueError(f"expected a prompt in {place}, got an empty text")
        if self.pair is not None:
            row[PAIR] = _text(fields.get(self.pair), place, f"text as {self.pair}")
        if self.answer and self.kind is not None:
            own: dict[str, Any] = {"label": {"asked": self.asked}, "labels": {"separator": self.label_separator}}
            row[self.kind] = ANSWERS[self.kind](fields.get(self.answer), place, **own.get(self.kind, {}))
        try:
            "".join(text for value in row.values() for text in _texts(value)).encode()
        except UnicodeEncodeError:
            raise ValueError(f"expected valid Unicode in {place}, got a lone surrogate") from None
        return row

    def _joined(self, fields: Mapping[str, Any], place: str) -> str:
        if len(self.text) == 1:
            return _text(fields.get(self.text[0]), place, "text as prompt" if self.kind == "completion" else "text")
        given = {name: fields.get(name) for name in self.text if fields.get(name) is not None}
        texts = [_text(value, place, f"text as {name}") for name, value in given.items()]
        if not texts:
            raise ValueError(f"expected a text in {place}, got nothing in {', '.join(self.text)}")
        return self.separator.join(texts)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value if isinstance(value, list) else []


def _text(value: Any, place: str, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a {what} in {place}, got {shown(value)}{chat(value)}")
    return value


def documents(
    records: Iterable[Record | Broken], columns: Columns, source: str, counts: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the texts and answer of each record, see `Columns.read`.

    Args:
        source: what a message calls the data.
        counts: gets the number of labels with spaces around them, as "spaces".

    Raises:
        ValueError: no records, a broken one, one without a valid text or answer (the message gives its number), or
            no record has a column.
    """
    number, seen, records = 0, dict[str, None](), iter(records)
    for record in records:
        if isinstance(record, Broken):
            raise ValueError(record.reason)
        number += 1
        seen |= dict.fromkeys(record.fields)
        try:
            row = columns.read(record.fields, f"document {number} of {source}")
        except ValueError:
            if columns.wanted.keys() - seen:  # that no record has such a column would say more
                others = (name for one in records if isinstance(one, Record) for name in one.fields)
                _check_columns(columns, [*dict.fromkeys([*record.fields, *seen, *others])], source)
            raise
        if counts is not None and columns.kind in ("label", "labels"):
            given = record.fields.get(columns.answer)
            texts = [] if columns.label_separator else [text for text in _texts(given) if isinstance(text, str)]
            counts[SPACES] += any(text != text.strip() for text in texts)
        yield row
    if not number:
        raise ValueError(f"expected documents in {source}, got none")
    _check_columns(columns, [*seen], source)


def _check_columns(columns: Columns, names: list[str], source: str) -> None:
    """Raises ValueError if a column to read is none of these names."""
    for column, cure in columns.wanted.items():
        if column not in names:
            raise ValueError(lacking(column, source, names, cure))
