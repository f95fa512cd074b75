"""What a model says when it is asked for the facts of a prompt, and whether it is right."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from prompt_recall_task import PARTS, Batch
from ranking import to_text
from torch import Tensor, nn


class Answers(NamedTuple):
    """What a model says of a batch.

    Attributes:
        loss: mean over the parts of numbers.
        right: [B, facts] bool, whether both parts of a number are the likeliest.
    """

    loss: Tensor
    right: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Answers":
        """From the predictions for each token that follows the prompt [B, a, V], and its label [B, a]."""
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        right = (logits.argmax(-1) == labels) | (labels == -100)
        return cls(loss, right.unflatten(1, (-1, PARTS + 2)).all(-1))


def answers(model: Any, batch: Batch, k: int | None = None) -> Answers:
    """Ask for all facts of prompts that are pooled to k vectors; None: not at all."""
    labels = batch.labels[:, batch.words :]
    asked = {} if k is None else {"compress_mask": batch.prompt, "k": k}
    return Answers.of(model(batch.tokens, logits_to_keep=labels.shape[1] + 1, **asked).logits[:, :-1], labels)


@torch.no_grad()
def recall(said: Iterable[Answers]) -> dict[str, Any]:
    """Whether each fact was recalled, as text of 0 and 1, and the mean loss."""
    loss, right = zip(*said, strict=True)
    return {"right": to_text(torch.cat(right).flatten().int()), "loss": float(torch.stack(loss).mean())}
