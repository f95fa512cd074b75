"""Texts to token numbers."""

from datasets import DatasetDict


def encode_documents(tokenizer, dataset: DatasetDict, max_tokens: int | None = None) -> DatasetDict:
    """Tokenise every document in full.

    Args:
        tokenizer: a Hugging Face tokenizer.
        dataset: splits with the column "text".
        max_tokens: cut documents to so many tokens, special ones included; None: however long they are, which suits
            a model that encodes in windows.

    Returns:
        The same splits with the columns "input_ids" and "attention_mask", and of the old ones "label" and "summary".
        An empty text becomes the special tokens alone. Padding is the collator's.

    Raises:
        ValueError: max_tokens that leave no room beside the special tokens.
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
    return dataset.map(tokenise, batched=True, remove_columns=columns, desc="tokenise")


def encode_summaries(tokenizer, dataset: DatasetDict, max_tokens: int, start: int | None = None) -> DatasetDict:
    """Tokenise the column "summary" as the targets of a decoder, the new column "labels".

    Args:
        tokenizer: a Hugging Face tokenizer.
        dataset: splits with the column "summary".
        max_tokens: cut summaries to so many tokens, special ones included.
        start: the token that the decoder starts from; a target does not start with it once more.
    """
    _check_room(tokenizer, "max_summary_tokens", max_tokens)

    def tokenise(batch):
        targets = tokenizer(text_target=batch["summary"], truncation=True, max_length=max_tokens)["input_ids"]
        return {"labels": [target[target[0] == start :] for target in targets]}

    return dataset.map(tokenise, batched=True, remove_columns="summary", desc="tokenise summaries")


def _check_room(tokenizer, name: str, limit: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if limit is not None and limit <= special:  # tokenizers would not cut at all
        raise ValueError(f"expected {name} > {special}, the tokenizer's special tokens, got {limit}")
