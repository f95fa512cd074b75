"""The assignment of tokens to slots: which token flows into which slot, with what weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from shtopk import compiled, onnx
from shtopk.slots import pool_by_slot, product
from shtopk.tracing import form, stable_sort

Index = tuple[Tensor, Tensor]


class Assignment(NamedTuple):
    """The soft assignment of n tokens to k slots. `*` stands for any leading batch dimensions.

    It is sparse where every token flows into one slot at most: token i has the weight `weights[i]` in slot `slots[i]`.
    It is dense where a token may flow into every slot, as in iterative top-k: then `slots` is None. The methods work
    for both.

    Attributes:
        weights: [*, n] each token's share in its slot, or [*, k, n] if dense. At least float32, differentiable.
        slots: [*, n] the slot of each token in 0..k-1, -1 for none; None if the assignment is dense.
        mask: [*, k] bool, True where the slot holds at least one real token. The other slots are *empty*.
        positions: [*, k] index in 0..n-1 of the token with the largest weight in the slot; 0 for an empty slot.

    Example:
        >>> from shtopk import hard_topk
        >>> chosen = hard_topk(torch.eye(4), torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2).assignment
        >>> chosen.slots
        tensor([-1,  0, -1,  1])
        >>> chosen.pool(torch.arange(4.0).unsqueeze(-1)).squeeze(-1)
        tensor([1., 3.])
    """

    weights: Tensor
    slots: Tensor | None
    mask: Tensor
    positions: Tensor

    @classmethod
    def of(cls, weights: Tensor, slots: Tensor | None, mask: Tensor) -> Assignment:
        """Make an assignment from weights, slots and mask alone. Of equally heavy tokens the first leads the slot."""
        if slots is None:
            positions = weights.detach().argmax(-1).masked_fill(~mask, 0)
        else:
            heaviest = form(compiled.heaviest, compiled.heaviest, onnx.heaviest)
            positions = heaviest(weights.detach(), slots, mask)
        return cls(weights, slots, mask, positions)

    @classmethod
    def of_every_token(cls, mask: Tensor, dtype: torch.dtype) -> Assignment:
        """The assignment that changes nothing: each real token is alone in the slot of its own index.

        Args:
            mask: [*, n] bool, True for a real token.
            dtype: of the values; the weights have it too, or float32 if that is wider.
        """
        index = torch.arange(mask.shape[-1], device=mask.device).expand_as(mask)
        weights = mask.to(torch.promote_types(dtype, torch.float32))
        return cls(weights, index.masked_fill(~mask, -1), mask, index.masked_fill(~mask, 0))

    @classmethod
    def cat(cls, parts: Sequence[Assignment]) -> Assignment:
        """Join assignments along the first batch dimension."""
        weights, slots, *rest = zip(*parts, strict=True)
        return cls(torch.cat(weights), None if slots[0] is None else torch.cat(slots), *map(torch.cat, rest))

    def dense(self) -> Tensor:
        """The assignment as a matrix [*, k, n], for which `pool(values) == dense() @ values`."""
        if self.slots is None:
            return self.weights
        slot = torch.arange(self.mask.shape[-1], device=self.slots.device).unsqueeze(-1)
        return self.weights.unsqueeze(-2) * (self.slots.unsqueeze(-2) == slot)

    def pool(self, values: Tensor) -> Tensor:
        """Pool values [*, n, d] to [*, k, d], in the values' dtype.

        A token of weight 0 is never read, so a NaN there cannot reach the result.

        Raises:
            ValueError: values of another number of tokens.
        """
        n = self.weights.shape[-1]
        batch, k = self.mask.shape[:-1], self.mask.shape[-1]
        if values.shape[:-1] != (*batch, n):
            raise ValueError(f"values must be {[*batch, n, 'd']} to fit this choice, got {list(values.shape)}")
        if not values.is_floating_point():
            raise ValueError(f"expected floating-point values, got {values.dtype}; of whole numbers gather those at "
                             "positions")  # fmt: skip
        if self.slots is None:
            unread = (self.weights == 0).all(-2).unsqueeze(-1)
            return product(self.weights.to(values.dtype), values.masked_fill(unread, 0))
        flat = pool_by_slot(values.reshape(-1, n, values.shape[-1]), self.weights.reshape(-1, n),
                            self.slots.reshape(-1, n), k)  # fmt: skip
        return flat.view(*batch, k, values.shape[-1])

    def unpool(self, amounts: Tensor) -> Tensor:
        """Hand amounts of slots back to tokens: [*, m, k] becomes [*, m, n].

        Each slot's amount is divided among its tokens by their weights, so sums stay the same. It turns attention over
        slots into attention over tokens.

        Raises:
            ValueError: amounts of another number of slots.
        """
        if amounts.shape[-1] != self.mask.shape[-1]:
            raise ValueError(f"expected amounts of {self.mask.shape[-1]} slots, got {list(amounts.shape)}")
        if self.slots is None:
            return product(amounts, self.weights)
        slot = self.slots.clamp(min=0).unsqueeze(-2).expand(*amounts.shape[:-1], self.slots.shape[-1])
        return amounts.gather(-1, slot) * self._shares().unsqueeze(-2)

    def _shares(self) -> Tensor:
        """The weights, scaled to sum to 1 in each filled slot (those of `hard_topk` with a gate do not)."""
        if self.slots is None:
            return self.weights
        slot = self.slots.clamp(min=0)  # [*, n]
        total = self.weights.new_zeros(self.mask.shape).scatter_add(-1, slot, self.weights)
        return self.weights / total.gather(-1, slot).clamp(min=torch.finfo(total.dtype).tiny)

    def document_order(self) -> Tensor:
        """The order [*, k] that sorts the slots by position, with empty ones last."""
        n = self.weights.shape[-1]
        return stable_sort(self.positions.masked_fill(~self.mask, n))[1]

    def in_order(self) -> Assignment:
        """The same assignment with its slots in document order, empty ones last."""
        return self.reorder(self.document_order())

    def reorder(self, order: Tensor) -> Assignment:
        """The same assignment with its slots in another order: order [*, k] lists the slots, the first one first."""
        if self.slots is None:
            weights = self.weights.gather(-2, order.unsqueeze(-1).expand(*order.shape, self.weights.shape[-1]))
            slots = None
        else:
            weights = self.weights
            slots = order.argsort(-1).gather(-1, self.slots.clamp(min=0)).masked_fill(self.slots < 0, -1)
        return Assignment(weights, slots, self.mask.gather(-1, order), self.positions.gather(-1, order))

    def with_tokens_at(self, places: Tensor) -> Assignment:
        """The same assignment for tokens that have been moved.

        Args:
            places: [*, n] the new place of each token, a permutation.
        """
        places = places.to(self.weights.device)
        come_from = places.argsort(-1)
        if self.slots is None:
            weights, slots = self.weights.gather(-1, come_from.unsqueeze(-2).expand_as(self.weights)), None
        else:
            weights, slots = self.weights.gather(-1, come_from), self.slots.gather(-1, come_from)
        return Assignment(weights, slots, self.mask, places.gather(-1, self.positions).masked_fill(~self.mask, 0))

    def then(self, second: Assignment) -> Assignment:
        """Follow this assignment by a second one, which pools the slots of this one to k. Returns both as one.

        The result assigns the n tokens to the k slots. A token's weight is the product of its weights in both.
        """
        if self.slots is None or second.slots is None:
            return Assignment.of(product(second.dense(), self.dense()), None, second.mask)
        slot = self.slots.clamp(min=0)
        weights = self.weights * second.weights.gather(-1, slot)
        return Assignment.of(weights, second.slots.gather(-1, slot).masked_fill(self.slots < 0, -1), second.mask)

    def with_protected(self, alone: Tensor) -> Assignment:
        """Add p slots in front. Each holds one protected token alone, with weight 1.

        Args:
            alone: [*, p, n] bool, True at the token of each new slot; all False makes the slot empty. These tokens
                must have no weight in this assignment.
        """
        real, index, taken = alone.any(-1), alone.int().argmax(-1), alone.any(-2)  # [*, p], [*, p], [*, n]
        if self.slots is None:
            weights, slots = torch.cat([alone.to(self.weights.dtype), self.weights], -2), None
        else:
            weights = self.weights + taken
            slots = (self.slots + alone.shape[-2]).masked_fill(self.slots < 0, -1)
            slots = torch.where(taken, alone.int().argmax(-2), slots)
        positions = torch.cat([index.masked_fill(~real, 0), self.positions], -1)
        return Assignment(weights, slots, torch.cat([real, self.mask], -1), positions)

    def reassemble(
        self, pieces: Index, wholes: Index, numbers: Tensor, document: Tensor, shape: tuple[int, int, int]
    ) -> Assignment:
        """Put the assignments of W pieces of documents, [W, n] to [W, k], together to one of the B documents.

        Args:
            pieces: (piece, place in it) of each of the T tokens, [T] both.
            wholes: (document, place in it) of the same tokens, [T] both.
            numbers: [W, k] the number that each slot of a piece gets in its document.
            document: [W] the document that each piece is a part of.
            shape: (B, tokens of a document, slots of a document).
        """
        batch, n, k = shape
        slot = document.unsqueeze(-1), numbers  # [W, k] in their documents
        place = self.positions.new_zeros(len(numbers), self.weights.shape[-1]).index_put(pieces, wholes[1])
        mask = self.mask.new_zeros(batch, k).index_put(slot, self.mask)
        positions = self.positions.new_zeros(batch, k).index_put(slot, place.gather(1, self.positions) * self.mask)
        if self.slots is None:
            weights = self.weights.transpose(1, 2)[pieces]  # [T, k of a piece]
            where = (wholes[0].unsqueeze(-1), numbers[pieces[0]], wholes[1].unsqueeze(-1))
            return Assignment(weights.new_zeros(batch, k, n).index_put(where, weights), None, mask, positions)
        weights, slots = self.weights[pieces], self.slots[pieces]  # [T]
        slots = numbers[pieces[0], slots.clamp(min=0)].masked_fill(slots < 0, -1)
        return Assignment(
            weights.new_zeros(batch, n).index_put(wholes, weights),
            slots.new_full((batch, n), -1).index_put(wholes, slots),
            mask,
            positions,
        )

    def entropy(self) -> Tensor:
        """Measure how soft the assignment is: the entropy of the tokens' weights within a slot.

        Returns:
            Tensor: [*] the mean over the filled slots, in nats, at least float32. It is 0 where every slot holds a
            single token (or none is filled), and log m where each slot spreads evenly over m tokens.

        Example:
            >>> from shtopk import successive_halving_topk
            >>> scores = torch.tensor([0.1, 2.0, 0.3, 1.0])
            >>> successive_halving_topk(torch.eye(4), scores, k=2, temperature=100.0).assignment.entropy()
            tensor(0.6931)
        """
        shares = self._shares()
        shares = shares.masked_fill(shares == 0, 1)  # as 0 it has no entropy, and at 0 that has no slope
        entropy = torch.special.entr(shares).sum(-1 if self.slots is not None else (-2, -1))
        return entropy / self.mask.sum(-1).clamp(min=1)

    def tokens_of(self, slot: int, smallest: float = 0.0) -> list[tuple[int, float]]:
        """List the tokens of one slot as pairs (index, weight). For a single document, without batch dimensions.

        Args:
            slot: in 0..k-1.
            smallest: only tokens that weigh more are listed.
        """
        weights = self.weights[slot] if self.slots is None else self.weights * (self.slots == slot)
        tokens = (weights > smallest).nonzero().flatten().tolist()
        return list(zip(tokens, weights[tokens].tolist(), strict=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> Assignment:
        """Apply a function to every tensor, such as taking a row, reshaping, or a copy for each beam."""
        slots = None if self.slots is None else function(self.slots)
        return Assignment(function(self.weights), slots, function(self.mask), function(self.positions))
