"""Other positions for a slot to bear than `pool_decoder` gives it, which is that of its heaviest token."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from shtopk.integrations.decoders import layout
from shtopk.topk import TopK

Bearing = Callable[[TopK], Tensor]
NOTHING = 1e-3  # the weight up to which a token does not count as one of a slot


def last_token(pooled: TopK) -> Tensor:
    """[B, k] the last token of each slot."""
    inside = pooled.dense_weights() > NOTHING
    return (inside * torch.arange(inside.shape[-1])).amax(-1)


def middle(pooled: TopK) -> Tensor:
    """[B, k] the mean position of the tokens of each slot, by their weights, rounded to a token."""
    weights = pooled.dense_weights().detach()
    total = (weights * torch.arange(weights.shape[-1])).sum(-1)
    return (total / weights.sum(-1).clamp(min=NOTHING)).round().long()


@contextmanager
def slots_bear(bearing: Bearing | None) -> Iterator[None]:
    """A context in which slots of `pool_decoder` bear these positions; None: their own."""
    own = layout.leads
    layout.leads = bearing or own
    try:
        yield
    finally:
        layout.leads = own
