"""The rows of a file of JSON, JSON lines, CSV or Parquet, one by one: few are in memory, however many there are.

Only a list in a .json file is read as a whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from shtopk.tasks.arguments import COMPLETION, PROMPT

LONGEST = 2**28  # bytes of a line, and characters of a CSV cell: binary files and open quotes have no end
TABLES = (".tsv", ".tab", ".xlsx", ".ods")  # which are not read
SIGNATURES = {  # first bytes -> kind of file, and its cure
    b"\x1f\x8b": ("a gzip archive", "unpack it with gunzip"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack or export it"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "unpack it with unzstd"),
    b"PAR1": ("a Parquet file", "let its name end in .parquet"),
    b"\xff\xfe": ("UTF-16", "convert it with `iconv -f utf-16 -t utf-8`"),
    b"\xfe\xff": ("UTF-16", "convert it with `iconv -f utf-16 -t utf-8`"),
}


class Record(NamedTuple):
    """A row: its place as a message says it, and its values by the names of their columns."""

    place: str
    fields: dict[str, Any]


class Broken(NamedTuple):
    """A row that cannot be read; `reason` is one line that names its place."""

    reason: str


class Line(NamedTuple):
    """A line without its end, and its number from 1 on."""

    number: int
    text: str


class DuplicateColumn(Exception):
    """Two columns have one name."""


Records = Iterator[Record | Broken]
Lines = Iterator[Line | Broken | None]


def records(path: Path, wanted: Mapping[str, str]) -> Records:
    """Yield the rows of a file in order, as they are read. Blank lines of JSON lines and CSV are skipped.

    Args:
        path: it ends in .json, .jsonl, .csv or .parquet.
        wanted: {column: how to choose another one}. Of a Parquet file no others are read.

    Raises:
        ValueError: in one line that names the file: it cannot be read any further, or a CSV or Parquet file lacks a
            column that is wanted.

    Example:
        >>> [record.fields["text"] for record in records(Path("mine.csv"), {"text": ""})]  # doctest: +SKIP
    """
    with refusing(path):
        yield from READERS[path.suffix.lower()](path, wanted)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Inside this context a file that cannot be read is a ValueError with one line."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or str(error).strip().splitlines()[0]}") from None
    except DuplicateColumn as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except (csv.Error, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot read {path}: {reason}; is the file complete?") from None


def some(names: Sequence[str]) -> str:
    """The first ten of the names, in quotes, and how many more there are."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def lacking(column: str, place: str, names: Sequence[str], cure: str) -> str:
    """A message: a column is not among the names."""
    shown = some([name if len(name) <= 40 else f"{name[:40]} …" for name in names]) or "none"
    if "label_column" in cure and {PROMPT, COMPLETION} <= set(names):
        cure += f"; a causal language model learns completions, with --prompt_column {PROMPT}"
    return f"expected a column {column!r} in {place}, got {shown}" + (f"; {cure}" if cure else "")


def check_different(names: Sequence[str]) -> None:
    """Raise DuplicateColumn if two columns have one name, so that nobody knows which one is meant."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DuplicateColumn(f"expected columns with different names, got {twice!r} twice; rename one")


def no_utf8(start: bytes, place: str, found: str) -> str:
    """A message: what begins with these bytes is no UTF-8 at this place."""
    for signature, (kind, cure) in SIGNATURES.items():
        if start.startswith(signature):
            return f"expected {place} to be text, got {kind}; {cure}"
    return f"expected {place} to be UTF-8, got {found}; convert it, perhaps with `iconv -f latin1 -t utf-8`"


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
            yield Broken(no_utf8(line, f"line {number} of {name}", f"the byte 0x{line[error.start]:02x}"))
        else:
            yield Line(number, text)


def lines_of(path: Path) -> Lines:
    with path.open("rb") as file:
        yield from numbered(iter(lambda: file.readline(LONGEST), b""), str(path))


def json_lines(lines: Lines, name: str) -> Iterator[Record | Broken | None]:
    """Take each line that is not blank for an object."""
    for line in lines:
        if not isinstance(line, Line):
            yield line
        elif line.text.strip():
            place = f"line {line.number} of {name}"
            try:
                yield _record(parse_json(line.text, name, line.number), place)
            except ValueError as error:
                yield Broken(str(error))
            except DuplicateColumn as error:
                yield Broken(f"cannot read {place}: {error}")


def parse_json(text: str, path: Path | str, line: int) -> Any:
    """The value of a JSON text that starts at a line of a file.

    Raises:
        ValueError: in one line: it is not JSON.
        DuplicateColumn: an object has one name twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise ValueError(f"cannot read {path}: no JSON at {place} ({error.msg}); is the file complete?") from None
    except RecursionError:
        raise ValueError(f"cannot read {path}: line {line} is nested too deeply") from None
    except ValueError:  # Python limits the digits of an int
        raise ValueError(f"cannot read {path}: line {line} has a number of too many digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        check_different([name for name, _ in pairs])
    return row


def _record(value: Any, place: str) -> Record | Broken:
    if not isinstance(value, dict):
        return Broken(f"expected {place} to be an object, got {type(value).__name__}")
    return Record(place, value)


def _check_columns(names: Sequence[str], path: Path, wanted: Mapping[str, str]) -> None:
    check_different(names)
    other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
    for column, cure in wanted.items():
        if column not in names:
            cure = cure if other is None else f"put commas between the cells of a .csv, in place of {other!r}"
            raise ValueError(lacking(column, str(path), names, cure))


def _read_json(path: Path, wanted: Mapping[str, str]) -> Records:
    """A list of objects, which is read as a whole, or JSON lines."""
    with path.open("rb") as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"["):
        yield from json_lines(lines_of(path), str(path))  # type: ignore[misc]
        return
    try:
        entries = parse_json(path.read_text(encoding="utf-8-sig"), path, 1)
    except UnicodeDecodeError as error:
        raise ValueError(no_utf8(start, str(path), f"the byte 0x{error.object[error.start]:02x}")) from None
    for number, entry in enumerate(entries, 1):
        yield _record(entry, f"entry {number} of {path}")


def _read_csv(path: Path, wanted: Mapping[str, str]) -> Records:
    """Every cell is a string: a document "NA" is not a missing value, and a label "01" is not a number.

    A row with more or fewer cells than the header is broken.
    """
    limit = csv.field_size_limit(LONGEST)  # by default documents end at 131,072 characters
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
            if not _is_utf8(header):
                start = ",".join(header).encode("utf-8", "surrogateescape")
                raise ValueError(no_utf8(start, str(path), "other bytes in its header"))
            if header:
                _check_columns(header, path, wanted)
            for row in reader:
                place = f"the row that ends at line {reader.line_num} of {path}"
                if row and len(row) != len(header):
                    yield Broken(f"expected {len(header)} cells in {place}, got {len(row)}; is the file complete?")
                elif not _is_utf8(row):
                    yield Broken(no_utf8(b"", place, "another byte"))
                elif row:
                    yield Record(place, dict(zip(header, row, strict=True)))
    finally:
        csv.field_size_limit(limit)


def _is_utf8(cells: Sequence[str]) -> bool:
    """Whether all cells were UTF-8. A byte that was not has become a lone surrogate."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(path: Path, wanted: Mapping[str, str]) -> Records:
    with pyarrow.parquet.ParquetFile(path, buffer_size=2**20, page_checksum_verification=True) as file:
        _check_columns(file.schema_arrow.names, path, wanted)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=list(wanted)):
            try:
                found = batch.to_pylist()
            except UnicodeDecodeError:
                raise pyarrow.ArrowInvalid(f"a text after row {number} is no UTF-8") from None
            for fields in found:
                number += 1
                yield Record(f"row {number} of {path}", fields)


def of_ending(path: Path) -> str:
    """What to do about a file with an ending that nothing reads; "" if nothing is known of it."""
    return "; save it as .csv, with commas between the cells" * (path.suffix.lower() in TABLES)


READERS: dict[str, Callable[[Path, Mapping[str, str]], Records]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
