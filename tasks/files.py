"""Local files: JSON, JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from shtopk.tasks.arguments import FILE_FIELDS, DataArguments
from shtopk.tasks.columns import assemble, clean, pick
from shtopk.tasks.task import of_any_rows

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

Columns = dict[str, list[Any]]
Pairs = tuple[list[str], list[str]]


class DuplicateColumn(Exception):
    """Two columns have one name."""


def check(arguments: DataArguments) -> None:
    """Raise ValueError if there is no train_file, or if `check_files` refuses a file."""
    if not arguments.train_file:
        raise ValueError("expected a train_file for the task files, got none; give one with --train_file")
    check_files(arguments)


def check_files(arguments: DataArguments) -> None:
    """Raise ValueError for a file that is missing, empty or of an unknown extension. No file is read."""
    for path in _paths(arguments).values():
        if path.suffix.lower() not in READERS:
            raise ValueError(f"expected a file ending in {', '.join(READERS)}, got {path}")
        try:
            if not path.is_file():
                raise ValueError(f"expected the file {path}, found {'a folder' if path.is_dir() else 'none there'}")
            if not path.stat().st_size:
                raise ValueError(f"expected documents in {path}, got an empty file")
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None


def read(arguments: DataArguments) -> DatasetDict:
    """The splits of the files. Those without a file are drawn, see `assemble`."""
    paths = _paths(arguments)
    splits = {name: _read(path, arguments) for name, path in paths.items()}
    sources = {name: str(path) for name, path in paths.items()}
    sources = {"validation": sources["train"], "test": sources["train"]} | sources
    return assemble(splits, arguments.answer, sources=sources, seed=arguments.data_seed)


def read_alone(arguments: DataArguments, split: str) -> Pairs | None:
    """The texts and answers of a split that has a file of its own; None if it has none."""
    check_files(arguments)
    path = _paths(arguments).get(split)
    if path is None and not arguments.train_file:
        raise ValueError(
            f"expected a file of the split {split}, or the train_file that it was drawn from; got neither"
        )
    return None if path is None else _read(path, arguments)


def _read(path: Path, arguments: DataArguments) -> Pairs:
    columns = read_columns(path)
    if not columns:
        raise ValueError(f"expected documents in {path}, got none")
    target = pick(list(columns), arguments, str(path))
    return clean(columns[arguments.text_column], columns[target], arguments.answer, str(path))


def read_columns(path: Path) -> Columns:
    """The columns of a file.

    Raises:
        ValueError: in one line that names the file: it cannot be read, is not UTF-8, breaks its format, or has two
            columns of one name.
    """
    try:
        return READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        for start, (kind, cure) in SIGNATURES.items():
            if error.object.startswith(start):
                raise ValueError(f"expected {path} to be text, got {kind}; {cure}") from None
        byte = f"0x{error.object[error.start]:02x}"
        cure = "convert it, perhaps with `iconv -f latin1 -t utf-8`"
        raise ValueError(f"expected {path} to be UTF-8, got the byte {byte}; {cure}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or _first_line(error)}") from None
    except DuplicateColumn as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except (csv.Error, pyarrow.ArrowException) as error:
        raise ValueError(f"cannot read {path}: {_first_line(error)}; is the file complete?") from None


def _read_json(path: Path) -> Columns:
    """A list of objects, or an object on every line."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows = {f"entry {i}": row for i, row in enumerate(parse_json(text, path, 1), 1)}
    else:
        # Only "\n" ends a line: str.splitlines would also cut at characters that JSON allows within a string.
        lines = enumerate(text.split("\n"), 1)
        rows = {f"line {i}": parse_json(line, path, i) for i, line in lines if line.strip()}
    names: dict[str, None] = {}
    for place, row in rows.items():
        if not isinstance(row, dict):
            raise ValueError(f"cannot read {path}: expected {place} to be an object, got {type(row).__name__}")
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows.values()] for name in names}


def parse_json(text: str, path: Path | str, line: int) -> Any:
    """The value of a JSON text that starts at a line of a file.

    Raises:
        ValueError: in one line: it is not JSON.
        DuplicateColumn: an object has one name twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_row)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise ValueError(f"cannot read {path}: no JSON at {place} ({error.msg}); is the file complete?") from None
    except RecursionError:
        raise ValueError(f"cannot read {path}: line {line} is nested too deeply") from None
    except ValueError:  # Python limits the digits of an int
        raise ValueError(f"cannot read {path}: line {line} has a number of too many digits") from None


def _row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        check_different([name for name, _ in pairs])
    return row


def check_different(names: list[str]) -> None:
    """Raise DuplicateColumn if two columns have one name, so that nobody knows which one is meant."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DuplicateColumn(f"expected columns with different names, got {twice!r} twice; rename one")


def _read_csv(path: Path) -> Columns:
    """Every cell is a string: a document "NA" is not a missing value, and a label "01" is not a number."""
    limit = csv.field_size_limit(2**31 - 1)  # by default documents end at 131,072 characters
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
            check_different(header)
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise csv.Error(
                        f"expected {len(header)} cells in the row that ends at line {reader.line_num}, got {len(row)}"
                    )
                if row:
                    rows.append(row)
    finally:
        csv.field_size_limit(limit)
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _read_parquet(path: Path) -> Columns:
    check_different(pyarrow.parquet.read_schema(path).names)
    try:
        return pyarrow.parquet.read_table(path, page_checksum_verification=True).to_pydict()
    except UnicodeDecodeError:
        raise pyarrow.ArrowInvalid("a text is no UTF-8") from None


def _paths(arguments: DataArguments) -> dict[str, Path]:
    named = {field.removesuffix("_file"): getattr(arguments, field) for field in FILE_FIELDS}
    return {name: Path(path) for name, path in named.items() if path}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


SIGNATURES = {  # first bytes -> kind of file, and its cure
    b"\x1f\x8b": ("a gzip archive", "unpack it with gunzip"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack or export it"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "unpack it with unzstd"),
    b"PAR1": ("a Parquet file", "let its name end in .parquet"),
    b"\xff\xfe": ("UTF-16", "convert it with `iconv -f utf-16 -t utf-8`"),
    b"\xfe\xff": ("UTF-16", "convert it with `iconv -f utf-16 -t utf-8`"),
}

READERS = {".json": _read_json, ".jsonl": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}

FILES = of_any_rows(
    "local files",
    name="files",
    licence="Whatever the files' owner says",
    read=read,
    read_alone=read_alone,
    check_source=check,
    fields=FILE_FIELDS,
)
