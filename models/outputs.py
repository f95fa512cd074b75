"""The outputs of the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers.utils import ModelOutput

from shtopk import Assignment, TopK


class WithAssignment:
    """An output that says which token flowed into which kept vector, with what weight: `output.assignment`.

    Pipelines, `generate` and data parallelism take outputs apart and put them together again. They can do so only with
    fields that are tensors, so the parts of the assignment are fields: weights, slots, positions and the mask.
    """

    vectors_name: ClassVar[str] = "last_hidden_state"
    mask_name: ClassVar[str] = "attention_mask"

    @classmethod
    def of(cls, pooled: TopK, **more: Any) -> Self:
        """Make an output from what was kept, and from further fields."""
        parts = pooled.assignment
        more |= {cls.vectors_name: pooled.hidden_states, cls.mask_name: pooled.attention_mask}
        more |= {"weights": parts.weights, "slots": parts.slots, "positions": parts.positions}
        return cls(**more)

    @property
    def assignment(self) -> Assignment:
        """The `shtopk.Assignment` of the document's tokens to the kept vectors."""
        fields: Any = self
        return Assignment(fields.weights, fields.slots, getattr(fields, self.mask_name) != 0, fields.positions)


@dataclass
class TopKPoolingModelOutput(WithAssignment, ModelOutput):
    """The vectors that were kept of each document.

    Attributes:
        last_hidden_state: [B, k, d], zero in empty slots.
        attention_mask: [B, k], which slots hold a token.
        positions: [B, k], index of the token that leads each slot.
        weights: as in `shtopk.Assignment`.
        slots: as in `shtopk.Assignment`.
        hidden_states: the encoder's, if asked for, of documents no longer than its window.
        attentions: likewise.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    positions: Tensor | None = None
    weights: Tensor | None = None
    slots: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class TopKPoolingClassifierOutput(WithAssignment, ModelOutput):
    """The classifier's output, with the vectors that were kept of each document.

    Attributes:
        loss: a scalar; None without labels.
        logits: [B, num_labels].
        pooled_hidden_states: [B, k, d] the vectors kept, zero in empty slots.
        pooled_attention_mask: [B, k], which slots hold a token.
        positions: [B, k], index of the token that leads each slot.
        weights: as in `shtopk.Assignment`.
        slots: as in `shtopk.Assignment`.
        pooled_scores: [B, k] of the slots.
        hidden_states: the encoder's, if asked for, of documents no longer than its window.
        attentions: likewise.
    """

    vectors_name, mask_name = "pooled_hidden_states", "pooled_attention_mask"

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
        last_hidden_state: [B, k, d], zero in empty slots.
        attention_mask: [B, k], which slots hold a token.
        positions: [B, k], index of the token that leads each slot.
        weights: as in `shtopk.Assignment`.
        slots: as in `shtopk.Assignment`.
        scores: [B, k] of the slots.
        input_ids: [B, L] the documents.
    """

    scores: Tensor | None = None
    input_ids: Tensor | None = None
