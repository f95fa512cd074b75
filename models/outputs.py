"""What the models answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers.utils import ModelOutput

from shtopk import Assignment


class WithAssignment:
    """Tells which token flows into which kept vector, with what weight: `output.assignment`.

    Pipelines, `generate` and data parallelism take an output apart and put it together again, which they can where the
    fields are tensors. So the parts of the assignment are fields: weights, slots, positions, and the output's mask.
    """

    mask_name: ClassVar[str] = "attention_mask"

    @property
    def assignment(self) -> Assignment:
        fields: Any = self
        return Assignment(fields.weights, fields.slots, getattr(fields, self.mask_name) != 0, fields.positions)


def parts_of(assignment: Assignment) -> dict[str, Any]:
    """Fields of an output that has an assignment, its mask aside."""
    return {"weights": assignment.weights, "slots": assignment.slots, "positions": assignment.positions}


@dataclass
class TopKPoolingModelOutput(WithAssignment, ModelOutput):
    """The vectors that were kept.

    Attributes:
        last_hidden_state: [B, k, d], zero in empty slots.
        attention_mask: [B, k] which slots hold a token.
        positions: [B, k] index of the token that dominates each slot.
        weights, slots: see `shtopk.Assignment`, which `assignment` is.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    positions: Tensor | None = None
    weights: Tensor | None = None
    slots: Tensor | None = None


@dataclass
class TopKPoolingClassifierOutput(WithAssignment, ModelOutput):
    """What the classifier answers.

    Attributes:
        loss: [] when labels were given.
        logits: [B, num_labels].
        pooled_hidden_states, pooled_attention_mask, positions, weights, slots: the vectors that were kept, as in
            `TopKPoolingModelOutput`.
        pooled_scores: [B, k] the scores of the slots.
        hidden_states, attentions: the encoder's, if asked for (documents no longer than its window).
    """

    mask_name = "pooled_attention_mask"

    loss: Tensor | None = None
    logits: Tensor | None = None
    pooled_hidden_states: Tensor | None = None
    pooled_attention_mask: Tensor | None = None
    positions: Tensor | None = None
    weights: Tensor | None = None
    slots: Tensor | None = None
    pooled_scores: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PooledEncoderOutput(TopKPoolingModelOutput):
    """What the decoder sees of B documents, and where it came from.

    Attributes:
        scores: [B, k] the scores of the slots.
        input_ids: [B, L] the documents.
        others: see `TopKPoolingModelOutput`.
    """

    scores: Tensor | None = None
    input_ids: Tensor | None = None
