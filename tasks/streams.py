"""Rows of files and of standard input, one by one: few are in memory, however many there are.

The files are those of training (JSON, JSON lines, CSV and Parquet) and plain text (.txt, a document a line). Only a
list in a .json file is read as a whole.
"""

from __future__ import annotations

import csv
import json
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from shtopk.tasks.files import SIGNATURES, DuplicateColumn, check_different, parse_json

STDIN = "-"
PATIENCE = 0.2  # seconds without a line on standard input, after which those that came are not to wait longer
LONGEST = 2**28  # bytes of a line, and characters of a CSV cell: binary files and open quotes have no end
LOOKED_AT = 100  # rows that `check` reads


class Row(NamedTuple):
    """A document: its place as a message says it, its text, and those of the columns to keep that it has."""

    place: str
    text: str
    kept: dict[str, Any]


class Broken(NamedTuple):
    """A row that cannot be read; `reason` is one line that names its place."""

    reason: str


@dataclass(frozen=True)
class Columns:
    """What to read of a row: the column of texts, and others to keep. A file of plain text has no others."""

    text: str = "text"
    keep: tuple[str, ...] = field(default=())


class Line(NamedTuple):
    """A line without its end, and its number from 1 on."""

    number: int
    text: str


Rows = Iterator[Row | Broken]
Lines = Iterator[Line | Broken | None]


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
        >>> [row.text for row in rows("mine.jsonl", Columns("body", ("id",)))]  # doctest: +SKIP
    """
    path = Path("standard input" if source == STDIN else source)
    try:
        if source != STDIN:
            yield from READERS[path.suffix.lower()](path, columns)
        elif sys.stdin is None:
            raise ValueError("expected documents on standard input, which is closed")
        else:
            yield from LINES[lines](numbered(arriving(sys.stdin.fileno()), str(path)), str(path), columns)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or str(error).strip().splitlines()[0]}") from None
    except DuplicateColumn as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except (csv.Error, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot read {path}: {reason}; is the file complete?") from None


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
    if path.suffix.lower() not in READERS:
        raise ValueError(f"expected a file ending in {', '.join(READERS)}, or - for standard input; got {path}")
    try:
        if not path.exists() or path.is_dir():
            raise ValueError(f"expected the file {path}, found {'a folder' if path.is_dir() else 'none there'}")
        if not path.is_file():
            raise ValueError(f"expected a file, got {path}, which is none; give its content on standard input, -")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    first = list(islice(rows(source, columns), LOOKED_AT))
    good = [row for row in first if isinstance(row, Row)]
    broken = next((row for row in first if isinstance(row, Broken)), None)
    if not first:
        raise ValueError(f"expected documents in {path}, got {'none' if path.stat().st_size else 'an empty file'}")
    if broken and (not skip or not good):
        raise ValueError(broken.reason)
    for name in columns.keep:
        if not any(name in row.kept for row in good):
            raise ValueError(f"expected a column {name!r} to keep in {path}, found none in its first rows")


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
        if len(begun) > LONGEST // 2**16:
            yield b"".join(begun)  # longer than any line may be
            return
    if last := b"".join(begun):
        yield last


def numbered(lines: Iterable[bytes | None], name: str) -> Lines:
    """Yield each line as text, without its end and a byte order mark; `Broken` if it is not UTF-8."""
    number = 0
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        if len(line) >= LONGEST:
            raise ValueError(f"cannot read {name}: line {number} is longer than {LONGEST // 2**20} MiB; is it text?")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield Broken(_no_utf8(line, f"line {number} of {name}", f"the byte 0x{line[error.start]:02x}"))
        else:
            yield Line(number, text)


def _no_utf8(start: bytes, place: str, found: str) -> str:
    for signature, (kind, cure) in SIGNATURES.items():
        if start.startswith(signature):
            return f"expected {place} to be text, got {kind}; {cure}"
    return f"expected {place} to be UTF-8, got {found}; convert it, perhaps with `iconv -f latin1 -t utf-8`"


def _lines_of(path: Path) -> Lines:
    with path.open("rb") as file:
        yield from numbered(iter(lambda: file.readline(LONGEST), b""), str(path))


def _texts(lines: Lines, name: str, columns: Columns) -> Iterator[Row | Broken | None]:
    """Take each line for a document."""
    if columns.keep:
        raise ValueError(f"{name} has lines of text, and no column {columns.keep[0]!r} to keep")
    for line in lines:
        yield Row(f"line {line.number} of {name}", line.text, {}) if isinstance(line, Line) else line


def _json_lines(lines: Lines, name: str, columns: Columns) -> Iterator[Row | Broken | None]:
    """Take each line that is not blank for an object."""
    for line in lines:
        if not isinstance(line, Line):
            yield line
        elif line.text.strip():
            yield _parsed(line, name, columns)


def _parsed(line: Line, name: str, columns: Columns) -> Row | Broken:
    place = f"line {line.number} of {name}"
    try:
        return _row(parse_json(line.text, name, line.number), place, columns)
    except ValueError as error:
        return Broken(str(error))
    except DuplicateColumn as error:
        return Broken(f"cannot read {place}: {error}")


def _row(fields: Any, place: str, columns: Columns) -> Row | Broken:
    if not isinstance(fields, dict):
        return Broken(f"expected {place} to be an object, got {type(fields).__name__}")
    if columns.text not in fields:
        return Broken(_lacks(columns.text, place, list(fields), "choose one with --text_column"))
    text = fields[columns.text]
    if not isinstance(text, str):
        return Broken(f"expected a text in {place}, got {'nothing' if text is None else type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Broken(f"expected valid Unicode in {place}, got a lone surrogate")
    return Row(place, text, {name: fields[name] for name in columns.keep if name in fields})


def _lacks(column: str, place: str, names: Sequence[str], cure: str) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:10]) or "none"
    return f"expected a column {column!r} in {place}, got {shown}{' and more' * (len(names) > 10)}; {cure}"


def _check_columns(names: Sequence[str], path: Path, columns: Columns) -> None:
    check_different(list(names))
    cures = {columns.text: "choose one with --text_column"} | dict.fromkeys(columns.keep, "choose with --keep")
    for column, cure in cures.items():
        if column not in names:
            raise ValueError(_lacks(column, str(path), names, cure))


def _read_text(path: Path, columns: Columns) -> Rows:
    yield from _texts(_lines_of(path), str(path), columns)  # type: ignore[misc]


def _read_json(path: Path, columns: Columns) -> Rows:
    """A list of objects, which is read as a whole, or JSON lines."""
    with path.open("rb") as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"["):
        yield from _json_lines(_lines_of(path), str(path), columns)  # type: ignore[misc]
        return
    try:
        entries = parse_json(path.read_text(encoding="utf-8-sig"), path, 1)
    except UnicodeDecodeError as error:
        raise ValueError(_no_utf8(start, str(path), f"the byte 0x{error.object[error.start]:02x}")) from None
    for number, entry in enumerate(entries, 1):
        yield _row(entry, f"entry {number} of {path}", columns)


def _read_csv(path: Path, columns: Columns) -> Rows:
    """Every cell is a string. A row with more or fewer cells than the header is broken."""
    limit = csv.field_size_limit(LONGEST)  # by default documents end at 131,072 characters
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
            if not _is_utf8(header):
                start = ",".join(header).encode("utf-8", "surrogateescape")
                raise ValueError(_no_utf8(start, str(path), "other bytes in its header"))
            if header:
                _check_columns(header, path, columns)
            for row in reader:
                place = f"the row that ends at line {reader.line_num} of {path}"
                if row and len(row) != len(header):
                    yield Broken(f"expected {len(header)} cells in {place}, got {len(row)}")
                elif not _is_utf8(row):
                    yield Broken(_no_utf8(b"", place, "another byte"))
                elif row:
                    yield _row(dict(zip(header, row, strict=True)), place, columns)
    finally:
        csv.field_size_limit(limit)


def _is_utf8(cells: Sequence[str]) -> bool:
    """Whether all cells were UTF-8. A byte that was not has become a lone surrogate."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(path: Path, columns: Columns) -> Rows:
    with pyarrow.parquet.ParquetFile(path, buffer_size=2**20, page_checksum_verification=True) as file:
        _check_columns(file.schema_arrow.names, path, columns)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=list(dict.fromkeys([columns.text, *columns.keep]))):
            try:
                found = batch.to_pylist()
            except UnicodeDecodeError:
                raise pyarrow.ArrowInvalid(f"a text after row {number} is no UTF-8") from None
            for fields in found:
                number += 1
                yield _row(fields, f"row {number} of {path}", columns)


LINES: dict[str, Callable[[Lines, str, Columns], Iterator[Row | Broken | None]]] = {
    "txt": _texts,
    "jsonl": _json_lines,
}
READERS: dict[str, Callable[[Path, Columns], Rows]] = {
    ".txt": _read_text,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def plain(value: Any) -> Any:
    """A value of a column as JSON has it. What JSON has no form for, such as dates, becomes text; NaN becomes null."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda name: None)
