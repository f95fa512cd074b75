"""Local files: JSON, JSON lines, CSV and Parquet."""

from __future__ import annotations

import codecs
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shtopk.tasks.any_rows import of_any_rows
from shtopk.tasks.arguments import COMPLETION, FILE_FIELDS, PROMPT, DataArguments
from shtopk.tasks.assemble import assemble, tell_kind, to_table
from shtopk.tasks.cache import cached
from shtopk.tasks.columns import TEXT, Columns
from shtopk.tasks.records import READERS, Record, no_utf8, of_ending, records, refusing

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict


def check(arguments: DataArguments) -> None:
    """Raise ValueError if there is no train_file, or if `check_files` refuses a file."""
    if not arguments.train_file:
        raise ValueError("expected a train_file for the task files, got none; give one with --train_file")
    check_files(arguments)


def check_files(arguments: DataArguments) -> None:
    """Raise ValueError for a file that is missing, empty or of an unknown extension. No file is read."""
    for path in _paths(arguments).values():
        if path.suffix.lower() not in READERS:
            raise ValueError(f"expected a file ending in {', '.join(READERS)}, got {path}{of_ending(path)}")
        try:
            if not path.is_file():
                raise ValueError(f"expected the file {path}, found {'a folder' if path.is_dir() else 'none there'}")
            if not path.stat().st_size:
                raise ValueError(f"expected documents in {path}, got an empty file")
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None


def with_completions_found(arguments: DataArguments) -> DataArguments:
    """The arguments; where they name no columns, and the first row of the training file has a prompt and a completion
    but no text, with these columns. A file that cannot be read is left to others to refuse.
    """
    named = arguments.text_column != DataArguments.text_column or arguments.text_pair_column or arguments.answer
    if arguments.task != "files" or not arguments.train_file or named:
        return arguments
    path = Path(arguments.train_file)
    if path.suffix.lower() not in READERS or not _has(path, PROMPT, COMPLETION) or _has(path, TEXT):
        return arguments
    return replace(arguments, prompt_column=PROMPT, completion_column=COMPLETION)


def _has(path: Path, *columns: str) -> bool:
    """Whether the first row of a file has these columns."""
    try:
        first = next(iter(records(path, dict.fromkeys(columns, ""))), None)
    except ValueError:
        return False
    return isinstance(first, Record) and first.fields.keys() >= set(columns)


def read(arguments: DataArguments) -> DatasetDict:
    """The splits of the files. Those without a file are drawn, see `assemble`."""
    paths = _paths(arguments)
    sources = {name: str(path) for name, path in paths.items()}
    sources = {"validation": sources["train"], "test": sources["train"]} | sources

    def prepare(folder: Path) -> DatasetDict:
        check_text(paths["train"])
        given = Columns.of(arguments)
        columns = given.settled(records(paths["train"], given.wanted))
        tables = {name: _table(path, columns, folder / name) for name, path in paths.items()}
        if given.kind is None:
            tell_kind(tables["train"], columns, sources["train"])
        return assemble(tables, str(columns.kind), sources=sources, seed=arguments.data_seed,
                        drop=arguments.drop_unknown_labels)  # fmt: skip

    return cached("files", f"{arguments.data_seed} {_facts(paths, arguments)}", prepare)


def read_alone(arguments: DataArguments, split: str) -> Dataset | None:
    """The texts and answers of a split that has a file of its own; None if it has none."""
    check_files(arguments)
    path = _paths(arguments).get(split)
    if path is None and not arguments.train_file:
        raise ValueError(
            f"expected a file of the split {split}, or the train_file that it was drawn from; got neither"
        )
    if path is None:
        return None
    from datasets import DatasetDict

    given, facts = Columns.of(arguments), _facts({split: path}, arguments)
    check_text(path)
    columns = given.settled(records(path, given.wanted))
    return cached("file", facts, lambda folder: DatasetDict({split: _table(path, columns, folder / split)}))[split]


def _facts(paths: dict[str, Path], arguments: DataArguments) -> str:
    """All that the texts and answers of files depend on, in words."""
    found = {name: (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for name, path in paths.items()}
    return f"{found} {Columns.of(arguments)} {arguments.drop_unknown_labels}"


def _table(path: Path, columns: Columns, target: Path) -> Dataset:
    check_text(path)
    return to_table(records(path, columns.wanted), columns, str(path), target)


def check_text(path: Path) -> None:
    """Raise ValueError, in one line that names the kind, if a text file begins as an archive or no UTF-8 does."""
    if path.suffix.lower() == ".parquet":
        return
    with refusing(path), path.open("rb") as file:
        start = file.read(2**16)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError as error:
        raise ValueError(no_utf8(start, str(path), f"the byte 0x{start[error.start]:02x}")) from None


def _paths(arguments: DataArguments) -> dict[str, Path]:
    named = {field.removesuffix("_file"): getattr(arguments, field) for field in FILE_FIELDS}
    return {name: Path(path) for name, path in named.items() if path}


FILES = of_any_rows(
    "local files",
    name="files",
    licence="Whatever the files' owner says",
    read=read,
    read_alone=read_alone,
    check_source=check,
    fields=FILE_FIELDS,
)
