"""From records to tables of texts and answers, and from these to train, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from shtopk.tasks.columns import PAIR, SPACES, TEXT, Columns, documents
from shtopk.tasks.labels import classes
from shtopk.tasks.records import Broken, Record
from shtopk.tasks.split import SHARES, SPLITS, normalise, stratified_split
from shtopk.tasks.table import each, with_type, write_table

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

SOON = 2  # seconds without a progress bar


def to_table(records: Iterable[Record | Broken], columns: Columns, source: str, path: Path) -> Dataset:
    """Read the texts and answers of records into a file.

    A line in its `info.description` says what was changed in labels.

    Args:
        source: what a message calls the data.
        path: of the file.

    Raises:
        ValueError: see `documents`.
    """
    counts: Counter[str] = Counter()
    rows = tqdm(documents(records, columns, source, counts), desc=f"read {source}", unit=" documents", delay=SOON)
    table = write_table(rows, columns.names, path)
    if counts[SPACES]:
        table.info.description = f"labels: {counts[SPACES]:,} in {source} have spaces around them, which do not count"
    return table


def assemble(
    tables: Mapping[str, Dataset],
    answer: str,
    *,
    sources: Mapping[str, str],
    order: Sequence[str] = (),
    seed: int = 0,
) -> DatasetDict:
    """Build train, validation and test. The classes are those of the training split.

    Args:
        tables: {split: texts and answers}, "train" at least. Missing ones are drawn from it, class by class: a fifth
            for the test, a tenth for validation. Documents that differ only in whitespace stay together.
        answer: "label" or "summary".
        sources: {split: what a message calls its data}.
        order: the classes in the order of their numbers; empty: sorted, numbers as numbers.
        seed: of the splits that are drawn.

    Raises:
        ValueError: fewer than two classes, a label that train lacks, or too few documents to split.
    """
    from datasets import DatasetDict

    splits, are_classes = dict(tables), answer == "label"
    missing = {name: share for name, share in SHARES.items() if name not in splits}
    if missing:
        train = splits["train"]
        labels = train[answer][:] if are_classes else [""] * len(train)
        rows = stratified_split(labels, _keys(train), missing, seed=seed)
        for name, chosen in rows.items():
            splits[name] = train.select(sorted(chosen))
            if not chosen:
                of_class = "of a class " if are_classes else ""
                different = len(set(_keys(train)))
                of_them = "" if different == len(train) else f", {different} of them different"
                raise ValueError(
                    f"expected enough documents {of_class}in {sources['train']} to draw a {name} split from, "
                    f"got {len(train)} documents{of_them}; give more of them, or a {name} split of its own"
                )
    if are_classes:
        kind = classes({name: splits[name].unique(answer) for name in splits}, sources, order)
        splits = {name: with_type(split, answer, kind) for name, split in splits.items()}
    return DatasetDict({name: splits[name] for name in SPLITS})


def _keys(split: Dataset) -> Iterator[str]:
    """The text of each document, or both texts of a pair, with single spaces."""
    columns = [name for name in (TEXT, PAIR) if name in split.column_names]
    return (normalise("\0".join(texts)) for texts in each(split, *columns))
