"""Which token flows into which slot, with what weight: the choice itself, apart from the vectors pooled by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.compiled import heaviest
from shtopk.slots import pool_by_slot

Index = tuple[Tensor, Tensor]


class Assignment(NamedTuple):
    """The soft assignment of n tokens to k slots. `*` stands for any leading batch dimensions.

    Sparse where every token flows into one slot at most: `weights[i]` of token i into slot `slots[i]`. Dense where a
    token may flow into every slot (iterative top-k): then slots is None. The methods serve both.

    Attributes:
        weights: [*, n] each token's share in its slot; dense: [*, k, n]. At least float32, differentiable.
        slots: [*, n] the slot in 0..k-1 of each token, -1 for none; None: the assignment is dense.
        mask: [*, k] bool, True where the slot holds at least one real token. Others are *empty*.
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
        """An assignment whose positions follow from its weights, the first of equals."""
        if slots is None:
            positions = weights.detach().argmax(-1).masked_fill(~mask, 0)
        else:
            positions = heaviest(weights.detach(), slots, mask)
        return cls(weights, slots, mask, positions)

    @classmethod
    def of_every_token(cls, mask: Tensor, dtype: torch.dtype) -> Assignment:
        """The identity: each real token of mask [*, n] alone in the slot of its own index. dtype: of the values."""
        index = torch.arange(mask.shape[-1], device=mask.device).expand_as(mask)
        weights = mask.to(torch.promote_types(dtype, torch.float32))
        return cls(weights, index.masked_fill(~mask, -1), mask, index.masked_fill(~mask, 0))

    @classmethod
    def cat(cls, parts: Sequence[Assignment]) -> Assignment:
        """Concatenate along the batch."""
        weights, slots, *rest = zip(*parts, strict=True)
        return cls(torch.cat(weights), None if slots[0] is None else torch.cat(slots), *map(torch.cat, rest))

    def dense(self) -> Tensor:
        """As one matrix [*, k, n]: `pool(values) == dense() @ values`."""
        if self.slots is None:
            return self.weights
        slot = torch.arange(self.mask.shape[-1], device=self.slots.device).unsqueeze(-1)
        return self.weights.unsqueeze(-2) * (self.slots.unsqueeze(-2) == slot)

    def pool(self, values: Tensor) -> Tensor:
        """Pool values [*, n, d] to [*, k, d].

        A token of weight zero is never read, so whatever stands there (NaN too) cannot reach the result.

        Raises:
            ValueError: values of another number of tokens.
        """
        n = self.weights.shape[-1]
        batch, k = self.mask.shape[:-1], self.mask.shape[-1]
        if values.shape[:-1] != (*batch, n):
            raise ValueError(f"values must be {[*batch, n, 'd']} to fit this choice, got {list(values.shape)}")
        if self.slots is None:
            unread = (self.weights == 0).all(-2).unsqueeze(-1)
            return self.weights.to(values.dtype) @ values.masked_fill(unread, 0)
        flat = pool_by_slot(values.reshape(-1, n, values.shape[-1]), self.weights.reshape(-1, n),
                            self.slots.reshape(-1, n), k)  # fmt: skip
        return flat.view(*batch, k, values.shape[-1])

    def unpool(self, amounts: Tensor) -> Tensor:
        """Divide amounts [*, m, k] of the slots among their tokens, by weight: [*, m, n]. Sums are kept.

        Raises:
            ValueError: amounts of another number of slots.
        """
        if amounts.shape[-1] != self.mask.shape[-1]:
            raise ValueError(f"expected amounts of {self.mask.shape[-1]} slots, got {list(amounts.shape)}")
        if self.slots is None:
            return amounts @ self.weights
        slot = self.slots.clamp(min=0).unsqueeze(-2).expand(*amounts.shape[:-1], self.slots.shape[-1])
        return amounts.gather(-1, slot) * self._shares().unsqueeze(-2)

    def _shares(self) -> Tensor:
        """The weights, so that those of a filled slot sum to 1: a gated slot's do not."""
        if self.slots is None:
            return self.weights
        slot = self.slots.clamp(min=0)  # [*, n]
        total = self.weights.new_zeros(self.mask.shape).scatter_add(-1, slot, self.weights)
        return self.weights / total.gather(-1, slot).clamp(min=torch.finfo(total.dtype).tiny)

    def document_order(self) -> Tensor:
        """[*, k] slots by position, empty ones last."""
        n = self.weights.shape[-1]
        return self.positions.masked_fill(~self.mask, n).argsort(dim=-1, stable=True)

    def in_order(self) -> Assignment:
        """With slots in document order."""
        return self.reorder(self.document_order())

    def reorder(self, order: Tensor) -> Assignment:
        """With slots in another order: order [*, k] says which slot comes first, second, ..."""
        if self.slots is None:
            weights = self.weights.gather(-2, order.unsqueeze(-1).expand(*order.shape, self.weights.shape[-1]))
            slots = None
        else:
            weights = self.weights
            slots = order.argsort(-1).gather(-1, self.slots.clamp(min=0)).masked_fill(self.slots < 0, -1)
        return Assignment(weights, slots, self.mask.gather(-1, order), self.positions.gather(-1, order))

    def with_tokens_at(self, places: Tensor) -> Assignment:
        """Of the same tokens in other places: places [*, n], a permutation, says where each one stands there."""
        come_from = places.argsort(-1)
        if self.slots is None:
            weights, slots = self.weights.gather(-1, come_from.unsqueeze(-2).expand_as(self.weights)), None
        else:
            weights, slots = self.weights.gather(-1, come_from), self.slots.gather(-1, come_from)
        return Assignment(weights, slots, self.mask, places.gather(-1, self.positions).masked_fill(~self.mask, 0))

    def then(self, second: Assignment) -> Assignment:
        """This assignment of n tokens to slots and a second one, of these slots to k, as one of the tokens.

        A token's weight is the product of its weights on the way.
        """
        if self.slots is None or second.slots is None:
            return Assignment.of(second.dense() @ self.dense(), None, second.mask)
        slot = self.slots.clamp(min=0)
        weights = self.weights * second.weights.gather(-1, slot)
        return Assignment.of(weights, second.slots.gather(-1, slot).masked_fill(self.slots < 0, -1), second.mask)

    def with_protected(self, alone: Tensor) -> Assignment:
        """With p slots in front that hold one token each, alone and of weight 1.

        alone: [*, p, n] where each of these tokens stands, nowhere for an empty slot. None of them has weight here.
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
        """Assignments of W pieces of documents, [W, n] to [W, k], as one of the B documents.

        Args:
            pieces: (piece, place in it), [T] each, of the tokens.
            wholes: (document, place in it), [T] each, of the same tokens.
            numbers: [W, k] each slot's number in its document.
            document: [W] the one that a piece is of.
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
        """How soft it is: the entropy of the tokens' weights within a slot, its mean over the filled slots.

        Returns:
            Tensor: [*] in nats; 0 where every slot holds a single token, log m where each spreads evenly over m, and 0
            where no slot is filled. At least float32.

        Example:
            >>> from shtopk import successive_halving_topk
            >>> scores = torch.tensor([0.1, 2.0, 0.3, 1.0])
            >>> successive_halving_topk(torch.eye(4), scores, k=2, temperature=100.0).assignment.entropy()
            tensor(0.6931)
        """
        entropy = torch.special.entr(self._shares()).sum(-1 if self.slots is not None else (-2, -1))
        return entropy / self.mask.sum(-1).clamp(min=1)

    def tokens_of(self, slot: int, smallest: float = 0.0) -> list[tuple[int, float]]:
        """(index, weight) of the tokens in a slot that weigh more than `smallest`, of a single document (no `*`)."""
        weights = self.weights[slot] if self.slots is None else self.weights * (self.slots == slot)
        tokens = (weights > smallest).nonzero().flatten().tolist()
        return list(zip(tokens, weights[tokens].tolist(), strict=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> Assignment:
        """The same function of every tensor: a row, a reshaping, a copy for each beam."""
        slots = None if self.slots is None else function(self.slots)
        return Assignment(function(self.weights), slots, function(self.mask), function(self.positions))
