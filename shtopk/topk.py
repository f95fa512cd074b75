"""The answer of a top-k operator: k pooled vectors, and the assignment that made them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.selection import Choice


class TopK(NamedTuple):
    """k pooled vectors of n tokens. `*` stands for any leading batch dimensions.

    A slot that no real token reached is *empty*: its mask is False; its vector, score and position are zero.

    Attributes:
        values: [*, k, d] pooled vectors, in the dtype of the values given.
        scores: [*, k] pooled scores, differentiable, in the dtype of the scores given.
        assignment: which token flows into which slot, with what weight.
        attention_mask: [*, k] the mask for the layers above. `TopKPooling` gives it the dtype of the attention mask
            that it was called with; elsewhere it is bool.
    """

    values: Tensor
    scores: Tensor
    assignment: Assignment
    attention_mask: Tensor

    @classmethod
    def of(cls, values: Tensor, scores: Tensor, assignment: Assignment, dtype: torch.dtype = torch.bool) -> TopK:
        """Make a `TopK` whose attention mask follows from the assignment, in this dtype."""
        return cls(values, scores, assignment, assignment.mask.to(dtype))

    @property
    def mask(self) -> Tensor:
        """[*, k] bool, True where a slot holds at least one real token."""
        return self.assignment.mask

    @property
    def positions(self) -> Tensor:
        """[*, k] index in 0..n-1 of the token that leads each slot, the one of the largest weight; 0 for an empty
        slot.
        """
        return self.assignment.positions

    @property
    def weights(self) -> Tensor:
        """[*, n] each token's share in its slot; [*, k, n] of `iterative_topk`, where each slot mixes all tokens."""
        return self.assignment.weights

    @property
    def slots(self) -> Tensor | None:
        """[*, n] the slot of each token in 0..k-1, -1 for none; None of `iterative_topk`."""
        return self.assignment.slots

    @property
    def hidden_states(self) -> Tensor:
        """[*, k, d] the pooled vectors; another name of `values`."""
        return self.values

    @property
    def choice(self) -> Choice:
        """The same in the form that the model code inside checkpoints of 0.1.0 knows."""
        return Choice.of(self.values, self.scores, self.assignment)

    def dense_weights(self) -> Tensor:
        """The assignment as a matrix [*, k, n], for which `values == dense_weights() @ given_values`."""
        return self.assignment.dense()

    def pool(self, values: Tensor) -> Tensor:
        """Pool another tensor [*, n, d] by the same assignment to [*, k, d]: embeddings, positions, another layer."""
        return self.assignment.pool(values)

    def in_order(self) -> TopK:
        """The same with slots in document order, that is by `positions`; empty slots last."""
        order = self.assignment.document_order()  # [*, k] new slot -> old slot
        values = self.values.gather(-2, order.unsqueeze(-1).expand_as(self.values))
        return TopK(values, self.scores.gather(-1, order), self.assignment.reorder(order),
                    self.attention_mask.gather(-1, order))  # fmt: skip

    def after(self, first: Assignment) -> TopK:
        """The same pooled vectors as slots of the tokens of `first`, an assignment whose slots were pooled here."""
        return TopK(self.values, self.scores, first.then(self.assignment), self.attention_mask)

    def with_protected(self, values: Tensor, alone: Tensor) -> TopK:
        """Add slots in front for protected tokens of values [*, n, d]; see `Assignment.with_protected`."""
        real, index = alone.any(-1), alone.int().argmax(-1)  # [*, p]
        kept = values.gather(-2, index.unsqueeze(-1).expand(*index.shape, values.shape[-1]))
        return TopK.of(
            torch.cat([kept.masked_fill(~real.unsqueeze(-1), 0), self.values], -2),
            torch.cat([self.scores.new_zeros(real.shape), self.scores], -1),
            self.assignment.with_protected(alone),
        )

    def unflatten(self, batch: torch.Size) -> TopK:
        """Turn the first dimension back into the leading dimensions `batch`."""
        if len(batch) == 1:
            return self

        def shaped(x: Tensor) -> Tensor:
            return x.view(*batch, *x.shape[1:])

        return TopK.of(shaped(self.values), shaped(self.scores), self.assignment.map(shaped))
