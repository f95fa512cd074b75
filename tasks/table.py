"""Splits as tables on disk, written row by row and mapped into memory, so that they may be larger than it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict, Features

ROWS, CHARACTERS = 1000, 2**22  # that are held at a time


def write_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path) -> Dataset:
    """Write rows into a file, and return it as a data set.

    Args:
        rows: {column: text}; "labels" are lists of texts, "value" is a number.
        columns: the names of the columns.
        path: of the file.
    """
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    types = {"labels": List(Value("string")), "value": Value("float64")}
    features = Features({name: types.get(name, Value("string")) for name in columns})
    with ArrowWriter(path=str(path), features=features) as writer:
        for batch in _batches(rows):
            writer.write_batch({name: [row[name] for row in batch] for name in columns})
        writer.finalize()
    return Dataset.from_file(str(path))


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Put rows into lists of at most `ROWS` rows, and of `CHARACTERS` but for the last row."""
    batch: list[Mapping[str, Any]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) == ROWS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def rows_at_once(split: Dataset) -> int:
    """How many rows of a split to work on at a time: at most `ROWS`, and about `CHARACTERS` bytes."""
    return max(1, min(ROWS, CHARACTERS * max(1, split.data.num_rows) // max(1, split.data.nbytes)))


def each(split: Dataset, *columns: str) -> Iterator[tuple]:
    """Yield the values of these columns, row by row; few rows are in memory."""
    for batch in split.select_columns(list(columns)).iter(rows_at_once(split)):
        yield from zip(*(batch[name] for name in columns), strict=True)


def joined(split: Dataset) -> list[str]:
    """The text of each document; both texts of a pair in one."""
    columns = [name for name in ("text", "text_pair") if name in split.column_names]
    return [" ".join(texts) for texts in each(split, *columns)]


def to_datasets(splits: Mapping[str, Sequence[tuple]], answer: str, kind: Any = None) -> DatasetDict:
    """Splits of pairs (text, answer) in memory, as a DatasetDict with the columns "text" and `answer`.

    Args:
        kind: the type of the answers; None: text.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    data, features = DatasetDict(), Features({"text": Value("string"), answer: kind or Value("string")})
    for name, rows in splits.items():
        columns = {"text": [text for text, _ in rows], answer: [value for _, value in rows]}
        data[name] = Dataset.from_dict(columns, features)
    return data


def with_type(split: Dataset, column: str, kind: Any) -> Dataset:
    """The split with a column of another type: texts become numbers of classes."""
    features: Features = split.features.copy()
    features[column] = kind
    return split.cast(features, batch_size=rows_at_once(split))
