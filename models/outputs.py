"""What the models answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers.utils import ModelOutput

from shtopk import Assignment, TopK


class WithAssignment:
    """Tells which token flows into which kept vector, with what weight: `output.assignment`.

    Pipelines, `generate` and data parallelism take an output apart and put it together again, which they can where the
    fields are tensors. So the parts of the assignment are fields: weights, slots, positions, and the output's mask.
    """

    vectors_name: ClassVar[str] = "last_hidden_state"
    mask_name: ClassVar[str] = "attention_mask"

    @classmethod
    def of(cls, pooled: TopK, **more: Any) -> Self:
        """An output with what was kept, and more fields."""
        parts = pooled.assignment
        more |= {cls.vectors_name: pooled.hidden_states, cls.mask_name: pooled.attention_mask}
        more |= {"weights": parts.weights, "slots": parts.slots, "positions": parts.positions}
        return cls(**more)

    @property
    def assignment(self) -> Assignment:
        fields: Any = self
        return Assignment(fields.weights, fields.slots, getattr(fields, self.mask_name) != 0, fields.positions)


@dataclass
class TopKPoolingModelOutput(WithAssignment, ModelOutput):
    """The vectors that were kept; weights and slots: see `shtopk.Assignment`, which `assignment` is."""

    last_hidden_state: Tensor | None = None  # [B, k, d], zero in empty slots
    attention_mask: Tensor | None = None  # [B, k] which slots hold a token
    positions: Tensor | None = None  # [B, k] index of the token that dominates each slot
    weights: Tensor | None = None
    slots: Tensor | None = None


@dataclass
class TopKPoolingClassifierOutput(WithAssignment, ModelOutput):
    """What the classifier answers; of the vectors that were kept, the same as `TopKPoolingModelOutput`."""

    vectors_name, mask_name = "pooled_hidden_states", "pooled_attention_mask"

    loss: Tensor | None = None  # [] when labels were given
    logits: Tensor | None = None  # [B, num_labels]
    pooled_hidden_states: Tensor | None = None  # [B, k, d]
    pooled_attention_mask: Tensor | None = None  # [B, k]
    positions: Tensor | None = None
    weights: Tensor | None = None
    slots: Tensor | None = None
    pooled_scores: Tensor | None = None  # [B, k] of the slots
    # The encoder's, if asked for (documents no longer than its window).
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PooledEncoderOutput(TopKPoolingModelOutput):
    """What the decoder sees of B documents, and where it came from."""

    scores: Tensor | None = None  # [B, k] of the slots
    input_ids: Tensor | None = None  # [B, L] the documents
