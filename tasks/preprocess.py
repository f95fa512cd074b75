"""Texts to token numbers."""

from datasets import DatasetDict

from shtopk.tasks.shortened import tell_shortened


def encode_documents(tokenizer, dataset: DatasetDict, max_tokens: int | None = None) -> DatasetDict:
    """Tokenise every document in full.

    Args:
        tokenizer: a Hugging Face tokenizer.
        dataset: splits with the column "text".
        max_tokens: cut documents to so many tokens, special ones included; None: cut nothing, for a
            model that encodes in windows.

    Returns:
        The same splits with the columns "input_ids", "attention_mask" and, as before, "label" or "summary". An empty
        text becomes the special tokens alone. Padding is the collator's. Prints how many documents have no text and
        how many were cut, if any.

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

    columns = [name for name in next(iter(dataset.values())).column_names if name not in ("label", "summary")]
    encoded = dataset.map(tokenise, batched=True, remove_columns=columns, desc="tokenise")
    special = tokenizer.num_special_tokens_to_add()
    tell_shortened("documents", encoded, "input_ids", empty=special, limit=max_tokens, name="max_tokens")
    return encoded


def encode_summaries(tokenizer, dataset: DatasetDict, max_tokens: int, start: int | None = None) -> DatasetDict:
    """Tokenise the column "summary" as the targets of a decoder, the new column "labels".

    Args:
        tokenizer: a Hugging Face tokenizer.
        dataset: splits with the column "summary".
        max_tokens: cut summaries to so many tokens, special ones included.
        start: the token that the decoder starts from, which a target does not repeat.
    """
    _check_room(tokenizer, "max_summary_tokens", max_tokens)

    def tokenise(batch):
        targets = tokenizer(text_target=batch["summary"], truncation=True, max_length=max_tokens)["input_ids"]
        return {"labels": [target[target[0] == start :] for target in targets]}

    encoded = dataset.map(tokenise, batched=True, remove_columns="summary", desc="tokenise summaries")
    starts = tokenizer(text_target="")["input_ids"][:1] == [start]  # then labels are shorter by one token
    empty, limit = tokenizer.num_special_tokens_to_add() - starts, max_tokens - starts
    tell_shortened("summaries", encoded, "labels", empty=empty, limit=limit, name="max_summary_tokens")
    return encoded


def _check_room(tokenizer, name: str, limit: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if limit is not None and limit <= special:  # tokenizers would not cut at all
        raise ValueError(f"expected {name} > {special}, the tokenizer's special tokens, got {limit}")
