"""From texts to token numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.compute

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

TARGETS = ("label", "labels", "value", "summary")  # columns that stay
LONG = 2**15  # tokens; training on a longer document, which is reported, may run out of memory


def encode_documents(tokenizer, dataset: DatasetDict, max_tokens: int | None = None) -> DatasetDict:
    """Tokenise the column "text", in full or cut to max_tokens (special ones included).

    It prints how many documents have no text and how many were cut, if any.

    Returns:
        The same splits with the columns "input_ids", "attention_mask" and, as before, "label" or "summary". An empty
        text becomes the special tokens alone. There is no padding; the collator adds it.

    Raises:
        ValueError: max_tokens leaves no room beside the special tokens.
    """
    _check_room(tokenizer, "max_tokens", max_tokens)

    def tokenise(batch):
        # verbose=False: no warning that a document is longer than the encoder has positions.
        return tokenizer(
            batch["text"],
            truncation=max_tokens is not None,
            max_length=max_tokens,
            return_token_type_ids=False,
            return_attention_mask=True,
            verbose=False,
        )

    columns = [name for name in next(iter(dataset.values())).column_names if name not in TARGETS]
    encoded = dataset.map(tokenise, batched=True, remove_columns=columns, desc="tokenise")
    special = tokenizer.num_special_tokens_to_add()
    _tell_shortened("documents", encoded, "input_ids", empty=special, limit=max_tokens, name="max_tokens")
    return encoded


def encode_summaries(tokenizer, dataset: DatasetDict, max_tokens: int, start: int | None = None) -> DatasetDict:
    """Tokenise the column "summary" as targets of a decoder, the new column "labels", cut to max_tokens.

    Args:
        start: the token that the decoder starts from; a target does not repeat it.
    """
    _check_room(tokenizer, "max_summary_tokens", max_tokens)

    def tokenise(batch):
        targets = tokenizer(text_target=batch["summary"], truncation=True, max_length=max_tokens)["input_ids"]
        return {"labels": [target[target[0] == start :] for target in targets]}

    encoded = dataset.map(tokenise, batched=True, remove_columns="summary", desc="tokenise summaries")
    starts = tokenizer(text_target="")["input_ids"][:1] == [start]  # then labels are shorter by one token
    empty, limit = tokenizer.num_special_tokens_to_add() - starts, max_tokens - starts
    _tell_shortened("summaries", encoded, "labels", empty=empty, limit=limit, name="max_summary_tokens")
    return encoded


def _check_room(tokenizer, name: str, limit: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if limit is not None and limit <= special:  # tokenizers would not cut at all
        raise ValueError(f"expected {name} > {special}, the tokenizer's special tokens, got {limit}")


def _tell_shortened(what: str, dataset: DatasetDict, column: str, *, empty: int, limit: int | None, name: str) -> None:
    """Print, on the main process, how many texts of each split are empty, cut or very long; nothing if there are none.

    Args:
        column: with the tokens, in encoded splits.
        empty: how many tokens an empty text has.
        limit: how many tokens a text that was cut has; None: nothing was cut.
        name: of the field with the limit.
    """
    lengths = {split: lengths_of(rows, column) for split, rows in dataset.items()}
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


def lengths_of(split: Dataset, column: str) -> pyarrow.ChunkedArray:
    """The lengths of the lists in a column, one for each row."""
    return pyarrow.compute.list_value_length(split.select_columns(column).with_format("arrow")[:][column])


def _count(mask: pyarrow.ChunkedArray) -> int:
    return pyarrow.compute.sum(mask).as_py() or 0
