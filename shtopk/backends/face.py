"""The interface of a backend: what it has to offer, and what it is given."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from shtopk.rule import Rule

Saved = tuple[Tensor, ...]  # kept from a forward pass for the backward pass of the same backend, in a form of its own


class Answer(NamedTuple):
    """k pooled vectors of n tokens, and the parts of their assignment; see `shtopk.TopK` and `shtopk.Assignment`."""

    values: Tensor  # [B, k, d] in the values' dtype
    scores: Tensor  # [B, k] in the scores' dtype
    mask: Tensor  # [B, k] bool
    positions: Tensor  # [B, k] int64, 0 for an empty slot
    weights: Tensor  # [B, n] float32 at least
    slots: Tensor  # [B, n] int64, -1 for none


class Gradients(NamedTuple):
    """The gradients of an `Answer`; None for a part on which nothing depends."""

    values: Tensor | None  # [B, k, d]
    scores: Tensor | None  # [B, k]
    weights: Tensor | None  # [B, n]


class Wanted(NamedTuple):
    """Which gradients are wanted."""

    values: bool
    scores: bool
    temperature: bool


class Backend(Protocol):
    """Successive halving, select and merge, and pooling by slot, for batches with one batch dimension."""

    def serves(self, values: Tensor, scores: Tensor) -> bool:
        """Whether this backend can compute with such tensors. For pooling by slot: with such values and weights."""

    def forward(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> tuple[Answer, Saved]:
        """Successive halving: the answer, and what `backward` needs.

        Args:
            values: [B, n, d].
            scores: [B, n].
            mask: [B, n] bool, True for a real token; None: all are real.
            temperature: scalar > 0 in the scores' dtype, float32 at least, on any device.
            k: slots.
            rule: how a pair is weighed.
        """

    def save(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> Saved:
        """What `forward` would save, without the pooling."""

    def backward(
        self, saved: Saved, gradients: Gradients, rule: Rule, wanted: Wanted
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of values, scores and temperature; None for one that is not wanted.

        The scores' gradient is in their dtype, or in float32 at least.
        """

    def merge(self, values: Tensor, scores: Tensor, logits: Tensor, k: int) -> tuple[Answer, Saved]:
        """Select and merge: the answer, and what `pool_backward` needs.

        Args:
            values: [B, n, d].
            scores: [B, n] float32 or float64, finite; -inf where there is no token.
            logits: [B, n] the same, divided by the temperature.
            k: slots.
        """

    def pool(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Saved]:
        """Sum weights * values in each slot: [B, n, d] becomes [B, k, d]. A token of weight 0 is not read."""

    def pool_save(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Saved:
        """What `pool` would save, without the pooling."""

    def pool_backward(
        self, saved: Saved, gradient: Tensor, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of values and weights; None for one that is not wanted."""
