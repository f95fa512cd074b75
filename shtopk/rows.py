"""Top-k with a k of its own for each row of a batch: one call of the operator for all rows of the same k."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.topk import TopK


def topk_by_row(
    topk: Callable[[Tensor, Tensor, int, Tensor], TopK], values: Tensor, scores: Tensor, ks: Tensor, mask: Tensor
) -> TopK:
    """Pool each row to its own number of slots; the output has as many as the largest.

    Args:
        topk: f(values, scores, k, mask) -> TopK, an operator.
        values: [B, n, d].
        scores: [B, n].
        ks: [B] the slots of each row, >= 1, on the CPU.
        mask: [B, n] True for a real token.

    Raises:
        ValueError: where it is traced, as the number of calls depends on data. `torch.compile` goes on without a graph
            here, unless it is to make one graph of all.
    """
    if torch.compiler.is_compiling():
        raise ValueError("a share as k cannot be traced, each row has its own; pass a whole number, or no mask")
    if not len(ks):
        return topk(values, scores, 1, mask)
    counts, order = ks.sort(stable=True)
    sizes = [(k, len(list(rows))) for k, rows in groupby(counts.tolist())]
    if len(sizes) == 1:
        return topk(values, scores, sizes[0][0], mask)
    order = order.to(values.device)
    # Put into order at once, as the gradient of every single choice of rows would be of the whole batch's size.
    ordered = (x.index_select(0, order).split([size for _, size in sizes]) for x in (values, scores, mask))
    groups = zip(sizes, *ordered, strict=True)
    parts = [with_slots(topk(values, scores, k, mask), sizes[-1][0]) for (k, _), values, scores, mask in groups]
    back = order.argsort()
    return TopK.of(
        torch.cat([part.values for part in parts]).index_select(0, back),
        torch.cat([part.scores for part in parts]).index_select(0, back),
        Assignment.cat([part.assignment for part in parts]).map(lambda x: x.index_select(0, back)),
    )


def with_slots(pooled: TopK, k: int) -> TopK:
    """The same with empty slots at the end, k in all."""
    spare = k - pooled.mask.shape[-1]
    if spare <= 0:
        return pooled
    mask, positions = (F.pad(x, (0, spare)) for x in (pooled.mask, pooled.positions))
    weights = pooled.weights if pooled.slots is not None else F.pad(pooled.weights, (0, 0, 0, spare))
    return TopK.of(
        F.pad(pooled.values, (0, 0, 0, spare)),
        F.pad(pooled.scores, (0, spare)),
        Assignment(weights, pooled.slots, mask, positions),
    )
