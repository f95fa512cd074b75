"""From texts to token numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.compute

from shtopk.integrations import reading
from shtopk.integrations.reading import (
    WHOLE,
    Reading,
    least_tokens,
    read_completions,
    read_prompts,
    read_texts,
    tokens_before,
)
from shtopk.tasks.columns import PAIR, TEXT
from shtopk.tasks.split import digest
from shtopk.tasks.table import rows_at_once

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

TARGETS = ("label", "labels", "value", "summary", "completion")  # columns that stay
LONG = 2**15  # tokens; training on a longer document, which is reported, may run out of memory
LENGTH = "length"


def encode_documents(
    tokenizer,
    dataset: DatasetDict,
    max_tokens: int | None = None,
    how: Reading = WHOLE,
    num_proc: int | None = None,
) -> DatasetDict:
    """Tokenise the column "text", and "text_pair" if there is one, in full or cut to max_tokens (see `read_texts`).

    It prints how many documents have no text and how many were cut, if any. Splits on disk are tokenised once; the
    next time the tokens come from the cache.

    Args:
        how: the model reads documents.
        num_proc: processes that work on it, >= 1.

    Returns:
        The same splits with the columns "input_ids", "attention_mask", "token_type_ids" of pairs if the tokenizer has
        them and, as before, "label" or "summary". An empty text becomes the special tokens alone. There is no
        padding; the collator adds it.

    Raises:
        ValueError: max_tokens leaves no room beside the special tokens, or the prefix none in a window.
    """
    names = next(iter(dataset.values())).column_names
    pair = PAIR in names
    empty = least_tokens(tokenizer, pair, how.prefix)
    _check_room(empty, "max_tokens", max_tokens)

    def tokenise(batch):
        return read_texts(
            tokenizer,
            batch[TEXT],
            batch[PAIR] if pair else None,
            reading=how,
            max_tokens=max_tokens,
            return_token_type_ids=False,
            return_attention_mask=True,
        )

    columns = [name for name in names if name not in TARGETS]
    facts = f"{max_tokens} {how}"
    encoded = _map(dataset, tokenise, columns, "tokenise", f"{_identity(tokenizer)} {facts}", num_proc)
    _tell_shortened("documents", encoded, LENGTH, empty=empty, limit=max_tokens, name="max_tokens")
    return encoded.remove_columns(LENGTH)


def encode_summaries(
    tokenizer, dataset: DatasetDict, max_tokens: int, start: int | None = None, num_proc: int | None = None
) -> DatasetDict:
    """Tokenise the column "summary" as targets of a decoder, the new column "labels", cut to max_tokens.

    Args:
        start: the token that the decoder starts from; a target does not repeat it.
        num_proc: processes that work on it, >= 1.
    """
    _check_room(tokenizer.num_special_tokens_to_add(), "max_summary_tokens", max_tokens)

    def tokenise(batch):
        targets = tokenizer(text_target=batch["summary"], truncation=True, max_length=max_tokens)["input_ids"]
        return {"labels": [target[target[0] == start :] for target in targets]}

    facts = f"{_identity(tokenizer)} {max_tokens} {start}"
    encoded = _map(dataset, tokenise, ["summary"], "tokenise summaries", facts, num_proc)
    starts = tokenizer(text_target="")["input_ids"][:1] == [start]  # then labels are shorter by one token
    empty, limit = tokenizer.num_special_tokens_to_add() - starts, max_tokens - starts
    _tell_shortened("summaries", encoded, "labels", empty=empty, limit=limit, name="max_summary_tokens")
    return encoded


def encode_prompts(
    tokenizer, dataset: DatasetDict, max_tokens: int | None = None, num_proc: int | None = None
) -> DatasetDict:
    """Tokenise the column "text" as prompts, the new columns "input_ids" and "attention_mask" (see `read_prompts`).

    Args:
        max_tokens: how many tokens at the end of a prompt are kept.
        num_proc: processes that work on it, >= 1.
    """
    names = next(iter(dataset.values())).column_names

    def tokenise(batch):
        prompts = read_prompts(tokenizer, batch[TEXT], max_tokens)
        return {"input_ids": prompts, "attention_mask": [[1] * len(prompt) for prompt in prompts]}

    columns = [name for name in names if name not in TARGETS]
    encoded = _map(dataset, tokenise, columns, "tokenise prompts", f"{_identity(tokenizer)} {max_tokens}", num_proc)
    empty = len(tokens_before(tokenizer))
    _tell_shortened("prompts", encoded, "input_ids", empty=empty, limit=max_tokens, name="max_tokens")
    return encoded


def encode_completions(tokenizer, dataset: DatasetDict, max_tokens: int, num_proc: int | None = None) -> DatasetDict:
    """Tokenise the column "completion" as what follows a prompt, the new column "labels" (see `read_completions`).

    Args:
        max_tokens: how many tokens at the beginning of a completion are kept, the one that ends it included.
        num_proc: processes that work on it, >= 1.
    """

    def tokenise(batch):
        return {"labels": read_completions(tokenizer, batch["completion"], max_tokens)}

    facts = f"{_identity(tokenizer)} {tokenizer.eos_token_id} {max_tokens}"
    encoded = _map(dataset, tokenise, ["completion"], "tokenise completions", facts, num_proc)
    _tell_shortened("completions", encoded, "labels", empty=0, limit=max_tokens, name="max_completion_tokens")
    return encoded


def _map(
    dataset: DatasetDict, function: Callable, columns: list[str], desc: str, facts: str, num_proc: int | None
) -> DatasetDict:
    """Apply a function to batches of each split, in place of these columns. Its result is kept under these facts."""
    from datasets import DatasetDict

    code = "".join(Path(str(file)).read_text(encoding="utf-8") for file in (__file__, reading.__file__))
    return DatasetDict({
        name: split.map(
            function,
            batched=True,
            batch_size=rows_at_once(split),
            writer_batch_size=rows_at_once(split),
            remove_columns=columns,
            num_proc=num_proc if num_proc != 1 else None,
            desc=desc,
            # By default the function is hashed, and a tokenizer has another hash after each use.
            new_fingerprint=digest(f"{desc} {split._fingerprint} {facts} {code}")[:32],
        )
        for name, split in dataset.items()
    })  # fmt: skip


def _identity(tokenizer: Any) -> str:
    """All that a tokenizer's answers depend on, as a hash."""
    if not getattr(tokenizer, "is_fast", False):
        return digest(f"{type(tokenizer)} {tokenizer.init_kwargs} {sorted(tokenizer.get_vocab().items())}")
    rules = tokenizer.backend_tokenizer
    rules.no_truncation()  # every call sets what it needs
    rules.no_padding()
    targets = tokenizer(text_target="")["input_ids"]  # which a target language changes
    return digest(f"{tokenizer.truncation_side} {targets} {rules.to_str()}")


def _check_room(special: int, name: str, limit: int | None) -> None:
    if limit is not None and limit <= special:  # tokenizers would not cut at all
        raise ValueError(f"expected {name} > {special}, the tokenizer's special tokens, got {limit}")


def _tell_shortened(what: str, dataset: DatasetDict, column: str, *, empty: int, limit: int | None, name: str) -> None:
    """Print, on the main process, how many texts of each split are empty, cut or very long; nothing if there are none.

    Args:
        column: with the tokens or their number, in encoded splits.
        empty: how many tokens an empty text has.
        limit: how many tokens a text that was cut has; None: nothing was cut.
        name: of the field with the limit.
    """
    lengths = {split: lengths_of(rows, column) for split, rows in dataset.items()}
    parts = {"without text": {split: _count(pyarrow.compute.less_equal(n, empty)) for split, n in lengths.items()}}
    if limit is not None:
        full = {split: _count(pyarrow.compute.greater_equal(n, limit)) for split, n in lengths.items()}
        reached = name if column == "labels" else f"{limit:,} tokens"  # to which a model may cut, beside max_tokens
        parts[f"reach {reached}, where longer ones are cut"] = full
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
    """The lengths of the lists in a column, one for each row; numbers are taken for lengths themselves."""
    found = split.select_columns(column).with_format("arrow")[:][column]
    return found if pyarrow.types.is_integer(found.type) else pyarrow.compute.list_value_length(found)


def _count(mask: pyarrow.ChunkedArray) -> int:
    return pyarrow.compute.sum(mask).as_py() or 0
