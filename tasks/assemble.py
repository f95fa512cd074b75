"""From records to tables of texts and answers, and from these to train, validation and test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from shtopk.tasks.columns import PAIR, SPACES, TEXT, Columns, documents
from shtopk.tasks.labels import as_classes, class_names
from shtopk.tasks.records import Broken, Record
from shtopk.tasks.split import SHARES, SPLITS, normalise, stratified_split
from shtopk.tasks.table import each, write_table

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

SOON = 2  # seconds without a progress bar


NUMBERS_HINT = "; numbers to predict are asked for with problem_type regression"
TOLD = {
    "labels": "lists of labels, so that a document may have several (problem_type multi_label_classification)",
    "value": "numbers with a fraction, which are to be predicted (problem_type regression)",
}


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


def tell_kind(table: Dataset, columns: Columns, source: str) -> None:
    """Say in a table's `info.description` which kind of answer was found, unless it is classes."""
    if columns.kind in TOLD:
        line = f"answers: {columns.answer!r} in {source} holds {TOLD[columns.kind]}"
        table.info.description = "\n".join(filter(None, (table.info.description, line)))


def assemble(
    tables: Mapping[str, Dataset],
    answer: str,
    *,
    sources: Mapping[str, str],
    order: Sequence[str] = (),
    seed: int = 0,
    drop: bool = False,
) -> DatasetDict:
    """Build train, validation and test. The classes are those of the training split.

    Args:
        tables: {split: texts and answers}, "train" at least. Missing ones are drawn from it, class by class: a fifth
            for the test, a tenth for validation; of several labels the rarest counts. Documents that differ only in
            whitespace stay together.
        answer: "label", "labels", "value", "summary" or "completion".
        sources: {split: what a message calls its data}.
        order: the classes in the order of their numbers; empty: sorted, numbers as numbers.
        seed: of the splits that are drawn.
        drop: leave out documents with a label that train lacks.

    Raises:
        ValueError: fewer than two classes, a label that train lacks, or too few documents to split.
    """
    from datasets import DatasetDict

    splits, are_classes = dict(tables), answer in ("label", "labels")
    missing = {name: share for name, share in SHARES.items() if name not in splits}
    if missing:
        train = splits["train"]
        labels = _strata(train, answer)
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
                    + (NUMBERS_HINT if answer == "label" and _are_numbers(train) else "")
                )
    if are_classes:
        names = class_names(splits["train"], answer, sources["train"], order)
        splits = {
            name: as_classes(
                split,
                answer,
                names,
                sources[name],
                drop=drop,
                expected=f"the labels of {sources[name]} to occur in training",
            )
            for name, split in splits.items()
        }
    return DatasetDict({name: splits[name] for name in SPLITS})


def _strata(split: Dataset, answer: str) -> list[str]:
    """What is to have the same share in every split: the class, of several labels the rarest, of others nothing."""
    if answer == "label":
        return split[answer][:]
    if answer != "labels":
        return [""] * len(split)
    sets = split[answer][:]
    counts = Counter(label for labels in sets for label in labels)
    return [min(labels, key=lambda label: (counts[label], label), default="") for labels in sets]


def _are_numbers(split: Dataset) -> bool:
    """Whether there are many labels that all look like numbers."""
    labels = split.unique("label")
    return len(labels) > len(split) / 2 and all(re.fullmatch(r"-?[0-9]*[.]?[0-9]+", label) for label in labels)


def _keys(split: Dataset) -> Iterator[str]:
    """The text of each document, or both texts of a pair, with single spaces."""
    columns = [name for name in (TEXT, PAIR) if name in split.column_names]
    return ("\0".join(map(normalise, texts)) for texts in each(split, *columns))
