"""Rows of files and of standard input, one by one: few are in memory, however many there are.

The files are those of training (JSON, JSON lines, CSV and Parquet) and plain text (.txt, a document a line). Only a
list in a .json file is read as a whole.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from shtopk.tasks.columns import PAIR, TEXT, Columns
from shtopk.tasks.records import (
    LONGEST,
    READERS,
    Broken,
    Line,
    Lines,
    Record,
    json_lines,
    lacking,
    lines_of,
    numbered,
    of_ending,
    records,
    refusing,
)

STDIN = "-"
PATIENCE = 0.2  # seconds without a line on standard input, after which those that came are not to wait longer
LOOKED_AT = 100  # rows that `check` reads


class Row(NamedTuple):
    """A document: its place as a message says it, its text, those of the columns to keep that it has, and the second
    text of a pair.
    """

    place: str
    text: str
    kept: dict[str, Any]
    pair: str | None = None


def rows(source: str, columns: Columns, lines: str = "txt") -> Iterator[Row | Broken | None]:
    """Yield the rows of a file, or of standard input ("-"), in order, as they are read.

    A line of plain text is a document, even if it is empty. Blank lines between JSON lines and in CSV are skipped.

    Args:
        source: the path of a .txt, .json, .jsonl, .csv or .parquet file, or "-".
        columns: what to read of a row.
        lines: what standard input holds: lines of text ("txt") or JSON lines ("jsonl").

    Yields:
        A `Row`; or `Broken` for a row that cannot be read, and then the next row; or None if standard input has
        brought nothing for `PATIENCE` seconds.

    Raises:
        ValueError: in one line that names the source: it cannot be read any further, or lacks a column.

    Example:
        >>> [row.text for row in rows("mine.jsonl", Columns(("body",), keep=("id",)))]  # doctest: +SKIP
    """
    path = Path("standard input" if source == STDIN else source)
    with refusing(path):
        if source == STDIN:
            if sys.stdin is None:
                raise ValueError("expected documents on standard input, which is closed")
            yield from LINES[lines](numbered(arriving(sys.stdin.fileno()), str(path)), str(path), columns)
        elif path.suffix.lower() == ".txt":
            yield from _texts(lines_of(path), str(path), columns)
        else:
            wanted = dict.fromkeys(columns.keep, "choose with --keep") | columns.wanted
            yield from _rows(records(path, wanted), columns)


def check(source: str, columns: Columns, *, skip: bool = False) -> None:
    """Look at a file and its first rows. Standard input is not read.

    Args:
        skip: broken rows do not matter.

    Raises:
        ValueError: the file is missing, has an unknown ending or no documents; or its first rows lack a column or are
            broken.
    """
    if source == STDIN:
        return
    path = Path(source)
    if path.suffix.lower() not in ENDINGS:
        given = f"{path}{of_ending(path)}"
        raise ValueError(f"expected a file ending in {', '.join(ENDINGS)}, or - for standard input; got {given}")
    try:
        if not path.exists() or path.is_dir():
            raise ValueError(f"expected the file {path}, found {'a folder' if path.is_dir() else 'none there'}")
        if not path.is_file():
            raise ValueError(f"expected a file, got {path}, which is none; give its content on standard input, -")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    texts = columns.text if len(columns.text) > 1 and path.suffix.lower() != ".txt" else ()
    first = list(islice(rows(source, replace(columns, keep=(*columns.keep, *texts))), LOOKED_AT))
    good = [row for row in first if isinstance(row, Row)]
    broken = next((row for row in first if isinstance(row, Broken)), None)
    if not first:
        raise ValueError(f"expected documents in {path}, got {'none' if path.stat().st_size else 'an empty file'}")
    if broken and (not skip or not good):
        raise ValueError(broken.reason)
    for name in columns.keep:
        if not any(name in row.kept for row in good):
            raise ValueError(f"expected a column {name!r} to keep in {path}, found none in its first rows")
    for name in texts if len(first) < LOOKED_AT else ():  # of several texts one may begin later
        if not any(name in row.kept for row in good):
            raise ValueError(f"expected a column {name!r} of texts in {path}, found none; choose others with "
                             f"--text_column")  # fmt: skip


def count(source: str) -> int | None:
    """About how many rows a file has; None if that is unknown, or could only be found by reading it (CSV)."""
    path = Path(source)
    kind = path.suffix.lower()
    if source == STDIN or kind not in (".txt", ".jsonl", ".parquet"):
        return None
    if kind == ".parquet":
        return pyarrow.parquet.read_metadata(path).num_rows
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))


def arriving(descriptor: int, patience: float = PATIENCE) -> Iterator[bytes | None]:
    """Yield the lines of a pipe, a terminal or a file as they come, and None if none has come for so many seconds."""
    begun: list[bytes] = []
    size = 0
    while True:
        if os.name != "nt" and not select.select([descriptor], [], [], patience)[0]:
            yield None
        part = os.read(descriptor, 2**16)
        if not part:
            break
        first, *others = part.split(b"\n")
        begun.append(first)
        for line in others:
            yield b"".join(begun)
            begun = [line]
        size = len(begun[0]) if others else size + len(first)
        if size > LONGEST:
            yield b"".join(begun)  # longer than any line may be
            return
    if last := b"".join(begun):
        yield last


def _rows(records: Iterable[Record | Broken | None], columns: Columns) -> Iterator[Row | Broken | None]:
    """Read the texts of records."""
    for record in records:
        yield _row(record, columns) if isinstance(record, Record) else record


def _row(record: Record, columns: Columns) -> Row | Broken:
    place, fields = record
    texts = columns.text if not fields.keys() & {*columns.text} else ()  # of several one is enough
    for column, cure in columns.wanted.items():
        if column not in fields and column in (*texts, columns.pair):
            return Broken(lacking(column, place, list(fields), cure))
    try:
        row = columns.read(fields, place)
    except ValueError as error:
        return Broken(str(error))
    return Row(place, row[TEXT], {name: fields[name] for name in columns.keep if name in fields}, row.get(PAIR))


def _texts(lines: Lines, name: str, columns: Columns) -> Iterator[Row | Broken | None]:
    """Take each line for a document."""
    if columns.keep:
        raise ValueError(f"{name} has lines of text, and no column {columns.keep[0]!r} to keep")
    if columns.pair:
        raise ValueError(f"{name} has lines of text, and no column {columns.pair!r}; give pairs as JSON lines or CSV")
    for line in lines:
        yield Row(f"line {line.number} of {name}", line.text, {}) if isinstance(line, Line) else line


def _json_rows(lines: Lines, name: str, columns: Columns) -> Iterator[Row | Broken | None]:
    """Take each line that is not blank for an object."""
    return _rows(json_lines(lines, name), columns)


LINES: dict[str, Callable[[Lines, str, Columns], Iterator[Row | Broken | None]]] = {
    "txt": _texts,
    "jsonl": _json_rows,
}
ENDINGS = (".txt", *READERS)


def plain(value: Any) -> Any:
    """A value of a column as JSON has it. What JSON has no form for, such as dates, becomes text; NaN becomes null."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda name: None)
