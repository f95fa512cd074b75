"""Names of version 0.1.0 that the model code inside its checkpoints still imports."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from shtopk.assignment import Assignment


class Choice(NamedTuple):
    """The answer of an operator in 0.1.0: a `TopK` with the parts of its assignment as fields."""

    values: Any
    scores: Any
    mask: Tensor
    positions: Tensor
    weights: Tensor
    slots: Tensor | None

    @classmethod
    def of(cls, values: Any, scores: Any, assignment: Assignment) -> Choice:
        return cls(values, scores, assignment.mask, assignment.positions, assignment.weights, assignment.slots)

    @property
    def assignment(self) -> Assignment:
        return Assignment(self.weights, self.slots, self.mask, self.positions)

    def then(self, second: Choice) -> Choice:
        return Choice.of(second.values, second.scores, self.assignment.then(second.assignment))

    def in_order(self) -> Choice:
        order = self.assignment.document_order()
        values = self.values.gather(-2, order.unsqueeze(-1).expand_as(self.values))
        return Choice.of(values, self.scores.gather(-1, order), self.assignment.reorder(order))


TopK = Choice


class PooledTokens(NamedTuple):
    """The answer of `TopKPooling` in 0.1.0."""

    hidden_states: Tensor
    attention_mask: Tensor
    positions: Tensor
    choice: Choice
