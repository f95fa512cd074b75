"""Texts to token numbers."""

from datasets import DatasetDict


def encode(tokenizer, dataset: DatasetDict, max_tokens: int | None = None) -> DatasetDict:
    """Tokenise every document in full.

    Args:
        tokenizer: a Hugging Face tokenizer.
        dataset: splits with the columns "text" and "label".
        max_tokens: cut documents to so many tokens, special ones included; None: however long they are, which suits
            a model that encodes in windows.

    Returns:
        The same splits with the columns "input_ids", "attention_mask" and "labels". An empty text becomes the
        special tokens alone. Padding is the collator's.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens is not None and max_tokens <= special:  # tokenizers would not cut at all
        raise ValueError(f"expected max_tokens > {special}, the tokenizer's special tokens, got {max_tokens}")

    def tokenise(batch):
        # verbose=False: no warning that a document is longer than the encoder has positions.
        tokens = tokenizer(
            batch["text"],
            truncation=max_tokens is not None,
            max_length=max_tokens,
            return_token_type_ids=False,
            return_attention_mask=True,
            verbose=False,
        )
        return {**tokens, "labels": batch["label"]}

    columns = next(iter(dataset.values())).column_names
    return dataset.map(tokenise, batched=True, remove_columns=columns, desc="tokenise")
