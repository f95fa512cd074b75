"""What a model does not get to read, counted and said: texts that are empty or reach a limit. And very long ones."""

import os

import pyarrow
import pyarrow.compute
from datasets import Dataset, DatasetDict

LONG = 2**15  # tokens of a document from which on its length is told, as training may need more memory than there is


def tell_shortened(what: str, dataset: DatasetDict, column: str, *, empty: int, limit: int | None, name: str) -> None:
    """Print a line, on the main process, that counts them for each split; none where there are none to tell of.

    Args:
        what: "documents" or "summaries".
        dataset: encoded splits.
        column: of token numbers.
        empty: tokens of an empty text.
        limit: tokens at which texts were cut; None: nowhere.
        name: the field of the limit.
    """
    lengths = {split: _lengths(its, column) for split, its in dataset.items()}
    parts = {"without text": {split: _count(pyarrow.compute.less_equal(its, empty)) for split, its in lengths.items()}}
    if limit is not None:
        full = {split: _count(pyarrow.compute.greater_equal(its, limit)) for split, its in lengths.items()}
        parts[f"reach {name}, where longer ones are cut"] = full
    told = [
        f"{sum(counts.values()):,} {how} ({', '.join(f'{split} {n:,}' for split, n in counts.items() if n)})"
        for how, counts in parts.items()
        if any(counts.values())
    ]
    longest = max(pyarrow.compute.max(its).as_py() or 0 for its in lengths.values())
    if longest > LONG:
        told.append(f"the longest has {longest:,} tokens, which training holds in memory at once; {name} cuts")
    if told and os.environ.get("RANK", "0") == "0":
        print(f"{what}: {'; '.join(told)}")


def _lengths(split: Dataset, column: str) -> pyarrow.ChunkedArray:
    return pyarrow.compute.list_value_length(split.select_columns(column).with_format("arrow")[:][column])


def _count(mask: pyarrow.ChunkedArray) -> int:
    return pyarrow.compute.sum(mask).as_py() or 0
