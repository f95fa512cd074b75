"""What a top-k operator answers: which token goes to which slot with what weight, and the vectors pooled so."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.slots import heaviest, pool_by_slot


class TopK(NamedTuple):
    """k pooled vectors and the soft choice that made them. `*` stands for any leading batch dimensions.

    A slot that no real token reached is *empty*: its mask is False and its vector, score and position are zero.

    Attributes:
        values: [*, k, d] pooled vectors, in the dtype of the values given.
        scores: [*, k] pooled scores, differentiable, in the dtype of the scores given.
        mask: [*, k] bool, True where the slot holds at least one real token.
        positions: [*, k] index in 0..n-1 of the token with the largest weight in the slot.
        weights: [*, n] each token's share in its slot; or [*, k, n] where a token may flow into every slot
            (iterative top-k). At least float32, differentiable.
        slots: [*, n] the slot in 0..k-1 that each token flows into, -1 for none; or None with [*, k, n] weights.
    """

    values: Tensor
    scores: Tensor
    mask: Tensor
    positions: Tensor
    weights: Tensor
    slots: Tensor | None

    def dense_weights(self) -> Tensor:
        """The choice as one matrix [*, k, n]: `values == dense_weights() @ given_values`."""
        if self.slots is None:
            return self.weights
        slot = torch.arange(self.mask.shape[-1], device=self.slots.device).unsqueeze(-1)
        return self.weights.unsqueeze(-2) * (self.slots.unsqueeze(-2) == slot)

    def pool(self, values: Tensor) -> Tensor:
        """Pool a second tensor [*, n, d] by the same choice, to [*, k, d]: embeddings, positions, other layers.

        A token of weight zero is never read, so whatever stands there (NaN too) cannot reach the result.
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

    def in_order(self) -> TopK:
        """The same choice with slots in document order, by `positions`; empty slots last."""
        n = self.weights.shape[-1]
        order = self.positions.masked_fill(~self.mask, n).argsort(dim=-1, stable=True)  # [*, k] new slot -> old slot
        if self.slots is None:
            weights = self.weights.gather(-2, order.unsqueeze(-1).expand(*order.shape, n))
            slots = None
        else:
            weights = self.weights
            slots = order.argsort(-1).gather(-1, self.slots.clamp(min=0)).masked_fill(self.slots < 0, -1)
        return TopK(
            values=self.values.gather(-2, order.unsqueeze(-1).expand_as(self.values)),
            scores=self.scores.gather(-1, order),
            mask=self.mask.gather(-1, order),
            positions=self.positions.gather(-1, order),
            weights=weights,
            slots=slots,
        )

    def then(self, second: TopK) -> TopK:
        """This choice of k of n tokens and a second one, of these k slots, as one choice of the tokens.

        A token's weight is the product of its weights on the way; values, scores and mask are the second's.
        """
        if self.slots is None or second.slots is None:
            weights, slots = second.dense_weights() @ self.dense_weights(), None
            positions = weights.detach().argmax(-1).masked_fill(~second.mask, 0)
        else:
            slot = self.slots.clamp(min=0)
            weights = self.weights * second.weights.gather(-1, slot)
            slots = second.slots.gather(-1, slot).masked_fill(self.slots < 0, -1)
            positions = heaviest(weights.detach(), slots, second.mask)
        return second._replace(positions=positions, weights=weights, slots=slots)


class Candidates(NamedTuple):
    """The checked input of an operator, its leading dimensions flattened to one."""

    values: Tensor  # [B, n, d]
    scores: Tensor  # [B, n]
    mask: Tensor | None  # [B, n] bool; None: all are real
    batch: torch.Size

    def unflatten(self, choice: TopK) -> TopK:
        """The operator's answer with the leading dimensions back."""
        if len(self.batch) == 1:
            return choice
        given = {name: x for name, x in choice._asdict().items() if x is not None}
        return choice._replace(**{name: x.view(*self.batch, *x.shape[1:]) for name, x in given.items()})


def candidates(values: Tensor, scores: Tensor, k: int, mask: Tensor | None, temperature: float | Tensor) -> Candidates:
    """Check what an operator was given; see the operators for the meaning of each argument."""
    if scores.dim() < 1 or values.dim() != scores.dim() + 1 or values.shape[:-1] != scores.shape:
        raise ValueError(
            f"expected values [*, n, d] and scores [*, n] with equal leading dimensions, "
            f"got {list(values.shape)} and {list(scores.shape)}"
        )
    if scores.shape[-1] == 0:
        raise ValueError("expected at least one token (n >= 1), got n = 0")
    if not scores.is_floating_point() or not values.is_floating_point():
        raise ValueError(f"expected floating-point values and scores, got {values.dtype} and {scores.dtype}")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"expected k to be a whole number >= 1, got {k!r}")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"expected a temperature > 0, got {temperature!r}")
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise ValueError(f"expected a temperature that is one number, got a tensor {list(temperature.shape)}")
    if mask is not None and mask.shape != scores.shape:
        raise ValueError(f"expected a mask of the scores' shape {list(scores.shape)}, got {list(mask.shape)}")
    n, batch = scores.shape[-1], scores.shape[:-1]
    if mask is not None:
        mask = mask.bool().reshape(-1, n)
    return Candidates(values.reshape(-1, n, values.shape[-1]), scores.reshape(-1, n), mask, batch)


def bounded(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores in float32 at least, finite where real, -inf elsewhere."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # A real token may score as low as it likes, it is still wanted more than a masked one.
    bound = torch.finfo(scores.dtype).max / 8
    scores = scores.clamp(-bound, bound)
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)
