"""Train a language model without the logits of its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn.functional import pad

from shtopk.integrations.decoders.regions import IGNORED


def with_few_logits(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with which a causal language model makes logits of the tokens before a label, and no others.

    The loss stays the same. Without it a model makes n times V logits for each prompt of n tokens, with V words in its
    vocabulary, and their gradients, which is often more than all else that training keeps in memory.

    Args:
        batch: "labels" [B, n], -100 for the tokens of the prompt and for padding, and whatever else the model takes.

    Returns:
        The batch, with "logits_to_keep" and "shift_labels" as models of transformers take them. The output's logits
        are [T, V], of the T tokens before a label, row by row.

    Example:
        >>> import torch
        >>> batch = with_few_logits({"labels": torch.tensor([[-100, -100, 7, 8]])})
        >>> batch["logits_to_keep"], batch["shift_labels"]
        (tensor([[False,  True,  True, False]]), tensor([7, 8]))
    """
    shifted = pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)  # what each token predicts
    told = shifted != IGNORED
    return {**batch, "logits_to_keep": told, "shift_labels": shifted[told]}
