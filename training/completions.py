"""Rows of prompts and completions as batches of a causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shtopk.integrations.decoders.regions import IGNORED


@dataclass
class CompletionCollator:
    """Puts each completion behind its prompt, and padding before it. Labels are the completion's tokens, and -100 for
    the prompt, which ends where the labels begin.

    Attributes:
        pad_token_id: of the padding.
        pad_to_multiple_of: the length becomes a multiple of it; None: that of the longest row.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pairs = [(torch.tensor(row["input_ids"]).long(), torch.tensor(row["labels"]).long()) for row in rows]
        multiple = self.pad_to_multiple_of or 1
        length = -(-max(len(prompt) + len(completion) for prompt, completion in pairs) // multiple) * multiple
        ids = torch.full((len(rows), length), self.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for i, (prompt, completion) in enumerate(pairs):
            begin, end = length - len(prompt) - len(completion), length - len(completion)
            ids[i, begin:end], ids[i, end:], labels[i, end:] = prompt, completion, completion
            mask[i, begin:] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def prompts_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prompts of a batch [B, n] that `CompletionCollator` made, without completions: input_ids and attention_mask
    [B, m], padding first.
    """
    prompt = (batch["attention_mask"] != 0) & (batch["labels"] == IGNORED)
    order = prompt.long().argsort(dim=-1, stable=True)[:, -int(prompt.sum(-1).max()) :]
    return {"input_ids": batch["input_ids"].gather(1, order), "attention_mask": prompt.long().gather(1, order)}
