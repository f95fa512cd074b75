"""Pooling by slots that are given, put together from the kernels. Nothing here waits for the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from shtopk.backends.gpu import by_slot, ranking
from shtopk.backends.gpu.sizes import (
    SIZES,
    Kind,
    Sizes,
    between,
    cached,
    kind_of,
    power_of_two,
    read_tile,
    written_tile,
)
from shtopk.backends.gpu.start import Start

WORDS = 16  # of a record without a ranking


def pool(values: Tensor, weights: Tensor, slots: Tensor, k: int, sizes: Sizes = SIZES) -> Tensor:
    """See `Backend.pool`."""
    values, weights, slots = values.contiguous(), weights.contiguous(), slots.contiguous()
    batch, n, d = values.shape
    step = _pool(n, k, d, sizes, kind_of(values, weights, slots))
    keys = weights.new_empty((batch, n), dtype=torch.int64)
    records = weights.new_empty((batch, WORDS), dtype=torch.int32)
    pooled = values.new_empty((batch, k, d))
    step.carriers((batch, 1), weights, slots, keys, records)
    step.sort_few((batch, 1), keys, records)
    for programs, sort, merge in step.in_chunks:
        chunks = torch.empty_like(keys)
        sort((batch, programs), keys, records, chunks)
        merge((batch, programs), keys, records, chunks)
    step.pool((batch * k, 1), values, weights, keys, records, pooled)
    return pooled


class _Pool(NamedTuple):
    carriers: Start
    sort_few: Start
    in_chunks: list[tuple[int, Start, Start]]  # for rows of more than few carriers
    pool: Start


@cached
def _pool(n: int, k: int, d: int, sizes: Sizes, kind: Kind) -> _Pool:
    block, few = min(power_of_two(n), 4096), min(sizes.chunk, power_of_two(n))
    cut: dict[str, Any] = {"CHUNK": few, "PLAYERS": True, "num_warps": between(1, few // 128, 32)}
    # The players of a ranking of `few` slots, as far as sorting goes.
    sort = Start(ranking.sort_chunks, few, n, WORDS, 0, 0, 0.0, POWER=False, **cut)
    merge = Start(ranking.merge_chunks, few, n, 0, WORDS, 0, 0, AS_KEYS=True, SMALL=False, **cut)
    return _Pool(
        Start(by_slot.carriers, n, WORDS, N=block, num_warps=between(1, block // 256, 16)),
        Start(by_slot.sort_few, n, WORDS, S=few, num_warps=cut["num_warps"]),
        [(-(-n // few), sort, merge)] if n > few else [],
        Start(by_slot.pool_listed, n, k, d, WORDS, STEPS=n.bit_length(), **read_tile(d, kind[1][0].itemsize)),
    )


def unpool(
    gradient: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """See `Backend.pool_backward`."""
    gradient, values, weights, slots = (x.contiguous() for x in (gradient, values, weights, slots))
    (batch, n, d), k = values.shape, gradient.shape[1]
    grad_values = torch.empty_like(values) if of_values else None
    grad_weights = torch.empty_like(weights) if of_weights else None
    kind = kind_of(values, weights, slots, gradient)
    programs, start = _unpool(batch * n, n, k, d, of_values, of_weights, kind)
    start((programs, 1), gradient, values, weights, slots, grad_values, grad_weights)
    return grad_values, grad_weights


@cached
def _unpool(tokens: int, n: int, k: int, d: int, of_values: bool, of_weights: bool, kind: Kind) -> tuple[int, Start]:
    rows, width = written_tile(d, kind[1][0].itemsize)
    rows *= 2
    return -(-tokens // rows), Start(
        by_slot.unpool_by_token, tokens, n, k, d, ROWS=rows, D=width, OF_VALUES=of_values, OF_WEIGHTS=of_weights,
        num_warps=4,
    )  # fmt: skip
