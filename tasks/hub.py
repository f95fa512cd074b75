"""Any data set that `datasets.load_dataset` knows by name, or a folder laid out like one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shtopk.tasks.any_rows import of_any_rows
from shtopk.tasks.arguments import HUB_FIELDS, DataArguments
from shtopk.tasks.assemble import assemble, tell_kind, to_table
from shtopk.tasks.cache import cached
from shtopk.tasks.columns import Columns
from shtopk.tasks.labels import is_missing
from shtopk.tasks.records import Record, lacking
from shtopk.tasks.table import each

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev", "val"), "test": ("test",)}


def check(arguments: DataArguments) -> None:
    """Raise ValueError if there is no dataset_name. Whether the hub has it shows when it is loaded."""
    if not arguments.dataset_name:
        raise ValueError("expected a dataset_name for the task hub, got none; give one with --dataset_name")


def read(arguments: DataArguments) -> DatasetDict:
    """The splits of the data set. A split that is missing or has no answers is drawn, see `assemble`."""
    name, found, given = arguments.dataset_name, _load(arguments), Columns.of(arguments)
    columns = _settled(given, found.get("train"))
    parts, sources, unanswered = {}, {}, []
    for split, names in NAMES.items():
        key = next((other for other in names if other in found), None)
        sources[split] = f"{name} ({key or 'train'})"
        if key is not None:
            check_columns(found[key], columns, sources[split])
            if split == "train" or _is_answered(found[key], columns):
                parts[split] = found[key]
            else:
                unanswered.append(f"{sources[split]}: has no answers, so some documents of train are taken instead")
    if "train" not in parts:
        raise ValueError(f"expected a train split in the data set {name}, got {', '.join(found)}")
    order = _class_names(parts["train"], columns)

    def prepare(folder: Path) -> DatasetDict:
        tables = {split: _table(part, columns, sources[split], folder / split) for split, part in parts.items()}
        for split, part in parts.items():
            tables[split].info.download_checksums = part.info.download_checksums  # which say what commit it is
        names = [label.strip() for label in order]
        if given.kind is None:
            tell_kind(tables["train"], columns, sources["train"])
        return assemble(tables, str(columns.kind), sources=sources, order=names, seed=arguments.data_seed,
                        drop=arguments.drop_unknown_labels)  # fmt: skip

    facts = f"{arguments.data_seed} {arguments.drop_unknown_labels} {given.kind} {_facts(parts, columns)}"
    data = cached("hub", facts, prepare)
    info = data["train"].info
    info.description = "\n".join(filter(None, (info.description, *unanswered)))
    return data


def read_alone(arguments: DataArguments, split: str) -> Dataset | None:
    """The texts and answers of a split that the data set has, under whatever name; None if it has none."""
    found, columns = _load(arguments), Columns.of(arguments)
    key = next((name for name in (split, *NAMES.get(split, ())) if name in found), None)
    if key is None and split not in NAMES:
        names = ", ".join(found)
        raise ValueError(f"expected a split of the data set {arguments.dataset_name} ({names}), got {split!r}")
    if key is None:
        return None
    part, source = found[key], f"{arguments.dataset_name} ({key})"
    check_columns(part, columns, source)
    columns = _settled(columns, part)
    if split in NAMES and not _is_answered(part, columns):
        return None  # training drew one instead
    from datasets import DatasetDict

    facts = _facts({split: part}, columns)
    prepare = lambda folder: DatasetDict({split: _table(part, columns, source, folder / "rows")})
    return cached("split", facts, prepare)[split]


def check_columns(part: Dataset, columns: Columns, source: str) -> None:
    """Raise ValueError if a split lacks a column."""
    for column, cure in columns.wanted.items():
        if column not in part.column_names:
            raise ValueError(lacking(column, source, part.column_names, cure))


def _load(arguments: DataArguments) -> DatasetDict:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    check(arguments)
    name = arguments.dataset_name
    try:
        return load_dataset(name, arguments.dataset_config, revision=arguments.dataset_revision)
    except Exception as error:  # of the network, the file system or a parser: of many classes
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise ValueError(f"cannot load the data set {name}: {lines[0]}") from None


def _facts(parts: dict[str, Dataset], columns: Columns) -> str:
    """All that the texts and answers of splits depend on, in words."""
    return f"{ {name: part._fingerprint for name, part in parts.items()} } {columns}"


def _records(part: Dataset, columns: Columns) -> Iterator[Record]:
    """The rows of a split, with the names of classes in place of their numbers. A class of -1 is not published."""
    names = _class_names(part, columns)
    wanted, answer = list(columns.wanted), columns.answer

    def name_of(number: int | None) -> str | None:
        return None if number is None or number < 0 else names[number]

    for values in each(part, *wanted):
        fields = dict(zip(wanted, values, strict=True))
        if names:
            given = fields[answer]
            fields[answer] = list(map(name_of, given)) if isinstance(given, list) else name_of(given)
        yield Record("", fields)


def _class_names(part: Dataset, columns: Columns) -> tuple[str, ...]:
    """The names of classes, or of the classes in lists, where the data set has them; else none."""
    feature = part.features[columns.answer]
    return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _settled(columns: Columns, part: Dataset | None) -> Columns:
    """The columns with the kind of answer that a split has, if that is open; where it lacks them, as they are."""
    if part is None or columns.answer not in part.column_names or not set(columns.wanted) <= set(part.column_names):
        return columns
    return columns.settled(_records(part, columns))


def _is_answered(part: Dataset, columns: Columns) -> bool:
    """Whether any row has an answer."""
    names = getattr(part.features[columns.answer], "names", None)
    missing = is_missing if columns.kind in ("label", "value") else (lambda value: value is None)
    values = (value for (value,) in each(part, columns.answer))
    return any(not missing(value) and not (names and value < 0) for value in values)


def _table(part: Dataset, columns: Columns, source: str, target: Path) -> Dataset:
    return to_table(_records(part, columns), columns, source, target)


HUB = of_any_rows(
    "a data set on the hub",
    name="hub",
    licence="See the data set's card",
    read=read,
    read_alone=read_alone,
    check_source=check,
    fields=HUB_FIELDS,
)
