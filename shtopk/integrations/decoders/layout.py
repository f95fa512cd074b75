"""Where the vectors of a prompt stand, before and after they are pooled."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.integrations.decoders.flow import Flow
from shtopk.pooling import TopKPooling
from shtopk.topk import TopK


class Layout(NamedTuple):
    """Where the m vectors of each row stand. The vectors of a row are in order, and places without one come last.

    Attributes:
        places: [B, m] the column of the prompt in which the token stands that a vector comes from; of a slot, the
            token that leads it. -1: no vector.
        regions: [B, m] 1..R for what is to be pooled, or was, each region apart; 0 for a token that is kept whole.
        ends: [B, m] the column from which on others see the vector: its own; of a slot the last of its region, as the
            choice has read all of it.
    """

    places: Tensor
    regions: Tensor
    ends: Tensor

    @classmethod
    def of_prompt(cls, real: Tensor, regions: Tensor) -> Layout:
        """The layout of a prompt before anything is pooled.

        Args:
            real: [B, n] bool, True for a token.
            regions: [B, n] see above.
        """
        columns = torch.arange(real.shape[1], device=real.device).expand_as(real)
        return cls(columns.masked_fill(~real, -1), regions.masked_fill(~real, 0), columns)

    @property
    def real(self) -> Tensor:
        """[B, m] bool, True for a vector."""
        return self.places >= 0

    def to(self, device: torch.device) -> Layout:
        """The same layout on a device."""
        return Layout(*(part.to(device) for part in self))

    def largest(self) -> int:
        """How many vectors the largest region of a row has."""
        numbers = torch.arange(1, int(self.regions.max()) + 1, device=self.regions.device)
        return int((self.regions.unsqueeze(1) == numbers[:, None]).sum(-1).max())

    def between(self, start: int, end: int) -> Layout:
        """The layout of some of the columns of a prompt that is not pooled yet."""
        return Layout(*(part[:, start:end] for part in self))

    def take(self, index: Tensor, there: Tensor) -> Layout:
        """The layout of the vectors with these numbers, index [B, t]; there [B, t] False: no vector."""
        places, regions, ends = (part.gather(1, index) for part in self)
        return Layout(places.masked_fill(~there, -1), regions.masked_fill(~there, 0), ends)


def pool(
    pooling: TopKPooling, vectors: Tensor, layout: Layout, k: int | float | None = None
) -> tuple[Tensor, Layout, Flow]:
    """Pool each region of a prompt to k vectors, and keep what is in none.

    A region that has no more vectors passes as it is, whatever else is in its batch. Of a k that is a share, all are
    pooled.

    Args:
        pooling: how.
        vectors: [B, m, d] as laid out in `layout`.
        layout: of the vectors.
        k: in place of the pooling's own.

    Returns:
        Vectors [B, t, d], with zeros where there is none; their layout; and which vectors they come from.
    """
    count = int(layout.regions.max())
    k = pooling.current_k if k is None else k
    batch, _, size = vectors.shape
    numbers = torch.arange(1, count + 1, device=vectors.device)
    marked = layout.regions.unsqueeze(1) == numbers[:, None]  # [B, R, m]
    index, there = indices_of(marked.flatten(0, 1))  # [B * R, p]
    inside = _gather(vectors, index.reshape(batch, -1)).view(batch * count, -1, size)
    most = inside.shape[1]
    if most <= len(pooling.options.protected):
        slots, chosen, filled, assignment = inside, index, there, None
        ends = _of_regions(layout.ends, index)
    else:
        pooled = pooling(inside, there, k=k if isinstance(k, float) else min(k, most))
        fits = there.sum(1, keepdim=True) <= (0 if isinstance(k, float) else pooled.mask.shape[1])
        pooled = _as_they_are(pooled, inside, there, fits)
        filled, assignment = pooled.mask, pooled.assignment
        slots, chosen = pooled.hidden_states, index.gather(1, leads(pooled).masked_fill(~filled, 0))
        end = _of_regions(layout.ends, index).masked_fill(~there, 0).amax(1, keepdim=True)
        ends = torch.where(fits, _of_regions(layout.ends, chosen), end)
    kept, whole = indices_of(layout.real & (layout.regions == 0))
    vectors = torch.cat([slots.reshape(batch, -1, size), _gather(vectors, kept)], 1)
    chosen, filled = chosen.reshape(batch, -1), filled.reshape(batch, -1)
    after = layout.take(torch.cat([chosen, kept], 1), torch.cat([filled, whole], 1))
    after = after._replace(ends=torch.cat([ends.reshape(batch, -1), layout.ends.gather(1, kept)], 1))
    last = torch.iinfo(after.places.dtype).max
    order = after.places.masked_fill(~after.real, last).argsort(dim=1, stable=True)
    after = after.take(order, after.real.gather(1, order))
    flow = Flow(assignment, index, there, kept, whole, order, size=layout.places.shape[1])
    return _gather(vectors, order).masked_fill(~after.real.unsqueeze(-1), 0), after, flow


def _of_regions(of_vectors: Tensor, index: Tensor) -> Tensor:
    """[B * R, p] what stands in [B, m] for the vectors with these numbers, index [B * R, p]."""
    batch = len(of_vectors)
    return of_vectors.gather(1, index.reshape(batch, -1)).view(index.shape)


def _as_they_are(pooled: TopK, inside: Tensor, there: Tensor, fits: Tensor) -> TopK:
    """The same, but in regions [B * R, 1] that fit into the slots, their vectors are the slots."""
    if not bool(fits.any()):
        return pooled
    k = pooled.mask.shape[1]
    alone = Assignment.of_every_token(there, inside.dtype)
    weights, slots, mask, positions = pooled.assignment
    if slots is None:
        each = torch.eye(k, there.shape[1]).to(weights) * there.unsqueeze(1)
        weights = torch.where(fits.unsqueeze(-1), each, weights)
    else:
        of_itself = torch.where(there, torch.arange(there.shape[1], device=there.device), -1)
        weights, slots = torch.where(fits, alone.weights, weights), torch.where(fits, of_itself, slots)
    mask, positions = torch.where(fits, alone.mask[:, :k], mask), torch.where(fits, alone.positions[:, :k], positions)
    tokens = inside[:, :k].masked_fill(~there[:, :k].unsqueeze(-1), 0)
    values = torch.where(fits.unsqueeze(-1), tokens, pooled.hidden_states)
    return TopK.of(values, pooled.scores, Assignment(weights, slots, mask, positions))


def leads(pooled: TopK) -> Tensor:
    """[B, k] the token in whose place each slot stands: the one of the largest weight."""
    return pooled.positions


def spread(vectors: Tensor, places: Tensor, n: int) -> Tensor:
    """Put vectors [B, m, d] at their places [B, m] among n, -1 for none; 0 where none came through."""
    places = places.to(vectors.device)  # in a model on several devices the last layer has another one than the tokens
    places = places.masked_fill(places < 0, n)
    whole = vectors.new_zeros(vectors.shape[0], n + 1, vectors.shape[2])
    return whole.scatter(1, places.unsqueeze(-1).expand_as(vectors), vectors)[:, :n]


def indices_of(marked: Tensor) -> tuple[Tensor, Tensor]:
    """(index [B, p], there [B, p]) of what is marked in each row, in order; p is the largest number of a row."""
    counts = marked.sum(-1, keepdim=True)
    most = int(counts.max())
    index = (~marked).int().argsort(dim=-1, stable=True)[:, :most]
    return index, torch.arange(most, device=marked.device) < counts


def _gather(vectors: Tensor, index: Tensor) -> Tensor:
    return vectors.gather(1, index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))
