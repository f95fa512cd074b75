"""Counts of texts that are empty or cut at a limit, so that a model does not read them, and of very long ones."""

import os

import pyarrow
import pyarrow.compute
from datasets import Dataset, DatasetDict

LONG = 2**15  # tokens; training on a longer document, which is reported, may run out of memory


def tell_shortened(what: str, dataset: DatasetDict, column: str, *, empty: int, limit: int | None, name: str) -> None:
    """Print, on the main process, a line on empty, cut and very long texts by split; nothing if there are none.

    Args:
        what: "documents" or "summaries".
        dataset: encoded splits.
        column: the column of token ids.
        empty: number of tokens of an empty text.
        limit: number of tokens at which texts were cut; None: nowhere.
        name: the field of the limit.
    """
    lengths = {split: _lengths(rows, column) for split, rows in dataset.items()}
    parts = {"without text": {split: _count(pyarrow.compute.less_equal(n, empty)) for split, n in lengths.items()}}
    if limit is not None:
        full = {split: _count(pyarrow.compute.greater_equal(n, limit)) for split, n in lengths.items()}
        parts[f"reach {name}, where longer ones are cut"] = full
    reports = [
        f"{sum(counts.values()):,} {how} ({', '.join(f'{split} {n:,}' for split, n in counts.items() if n)})"
        for how, counts in parts.items()
        if any(counts.values())
    ]
    longest = max(pyarrow.compute.max(n).as_py() or 0 for n in lengths.values())
    if longest > LONG:
        reports.append(f"the longest has {longest:,} tokens, which training holds in memory at once; {name} cuts")
    if reports and os.environ.get("RANK", "0") == "0":
        print(f"{what}: {'; '.join(reports)}")


def _lengths(split: Dataset, column: str) -> pyarrow.ChunkedArray:
    return pyarrow.compute.list_value_length(split.select_columns(column).with_format("arrow")[:][column])


def _count(mask: pyarrow.ChunkedArray) -> int:
    return pyarrow.compute.sum(mask).as_py() or 0
