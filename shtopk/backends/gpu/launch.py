"""Successive halving and pooling by slot, put together from the kernels; nothing here waits for the device.

Buffers have the sizes that all n players would need, and a kernel touches no more of them than its row has. What
follows from sizes and dtypes alone is worked out once, in functions that are cached: the time of a step in which
operations are called one by one is the time that Python takes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shtopk.backends.face import Answer, Gradients, Wanted
from shtopk.backends.gpu import by_slot, ranking, trees
from shtopk.backends.gpu.field import field
from shtopk.backends.gpu.start import Start
from shtopk.backends.tournament import negligible, reach, rounds_between
from shtopk.rule import Rule

HEAD = 16  # words of a record that has nothing else
TOKENS = 32  # of a program that writes zeros

Kind = tuple[Any, ...]  # see `_kind`
cached = lru_cache(maxsize=1024)


class Sizes(NamedTuple):
    """How work is cut; powers of two."""

    block: int = 8192  # tokens of a row that one program looks at at once
    found: int = 1024  # tokens of a row that are sorted to find the k-th best
    alone: int = 2048  # places that one program ranks; a level of more is sorted in chunks
    chunk: int = 1024  # keys that one program sorts of a larger level, twice as many where there are many chunks


SIZES = Sizes()


class Layout(NamedTuple):
    """Of what is kept for a row of n tokens and k slots: 32-bit words."""

    levels: int  # above that of the slots
    places: int  # k * 2^levels
    total: int  # places of all levels, of the last one only n
    small: bool  # whether 16 bits tell where a candidate comes from
    stride: int  # of a record, see pairs.py
    room: int  # of 64 bits, for the players' keys and then for the leaves


class Played(NamedTuple):
    """What a tournament leaves for its backward pass."""

    records: Tensor  # [B, stride] int32
    like: Tensor  # [0, k] in the scores' dtype: it tells both


@cached
def layout_of(n: int, k: int) -> Layout:
    levels = rounds_between(n, k)
    total, small = k * (2**levels - 1) + n, max(n, k) < 2**15
    words = 4 + total + (-(-total // 2) if small else total) + -(-n // 4)
    return Layout(levels, k << levels, total, small, -(-words // 16) * 16, max(n, k << levels))


def forward(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule, sizes: Sizes = SIZES
) -> tuple[Answer, Played]:
    """See `Backend.forward`."""
    values, scores = values.contiguous(), scores.contiguous()
    mask = None if mask is None else mask.contiguous().view(torch.int8)
    batch, n, d = values.shape
    layout, new = layout_of(n, k), scores.new_empty
    answer = Answer(
        values=values.new_empty((batch, k, d)),
        scores=new((batch, k)),
        mask=new((batch, k), dtype=torch.bool),
        positions=new((batch, k), dtype=torch.int64),
        weights=new((batch, n), dtype=torch.float32),
        slots=new((batch, n), dtype=torch.int64),
    )
    records = new((batch, layout.stride), dtype=torch.int32)
    room = new((batch, layout.room), dtype=torch.int64)
    if temperature.device != scores.device and temperature.is_cuda:
        temperature = temperature.to(scores.device, non_blocking=True)
    on_device = temperature.device == scores.device
    kind = _kind(values, scores, mask, temperature if on_device else None)
    programs, start = _field(n, k, rule, sizes, kind)
    start(
        (batch, programs), scores, mask, temperature if on_device else float(temperature), records, room,
        answer.weights, answer.slots,
    )  # fmt: skip
    levels = _levels(n, k, rule, sizes, kind)
    chunks = torch.empty_like(room) if levels.in_chunks else None
    for programs, sort, merge in levels.in_chunks:
        sort((batch, programs), room, records, chunks)
        merge((batch, programs), room, records, chunks)
    if levels.play is not None:
        levels.play((batch, 1), room, records)
    _pool(n, k, d, rule, _few(batch * k), kind)(
        (batch * k, 1), values, records, room, answer.values, answer.scores, answer.mask.view(torch.int8),
        answer.positions, answer.weights, answer.slots,
    )  # fmt: skip
    return answer, Played(records, new((0, k)))


@cached
def _field(n: int, k: int, rule: Rule, sizes: Sizes, kind: Kind) -> tuple[int, Start]:
    """The programs of a row, and their start."""
    layout, width, below = layout_of(n, k), _power_of_two(n), reach(torch.float32, n, k, rule)
    block, found = min(width, sizes.block), min(width, sizes.found)
    helpful = found < width and min(n, 2 * k if rule.relative else k) <= found // 4
    held = width <= sizes.block // 2 and not helpful
    return 1 + -(-n // block), Start(
        field, n, k, below, layout.room, layout.total, layout.stride,
        num_warps=_between(1, width // 256, 16 if held else 8),
        BLOCK=block, GROUPS=found if helpful else 0, FOUND=found, HELD=held, HAS_MASK=kind[3] is not None,
        RELATIVE=rule.relative, ALL=below < 0, ON_DEVICE=kind[4] is not None, SMALL=layout.small,
    )  # fmt: skip


class _Levels(NamedTuple):
    """How the levels are ranked, from that of all tokens to that of the slots."""

    in_chunks: list[tuple[int, Start, Start]]  # the highest ones: programs of a row, and what sorts and merges
    play: Start | None  # all others


@cached
def _levels(n: int, k: int, rule: Rule, sizes: Sizes, kind: Kind) -> _Levels:
    levels, _, total, small, stride, room = layout_of(n, k)
    width, power = _power_of_two(k), rule.log_base > 0
    alone = min(levels, (sizes.alone // width).bit_length() - 1)  # the highest level of one program; -1: none
    in_chunks = []
    for level in range(levels, alone, -1):
        players = level == levels  # those of every row, whatever their level
        candidates = n if players else k << level
        chunk = sizes.chunk if candidates <= 8 * sizes.chunk else 2 * sizes.chunk
        cut: dict[str, Any] = {"CHUNK": chunk, "PLAYERS": players, "num_warps": _between(1, chunk // 128, 32)}
        sort = Start(ranking.sort_chunks, k, room, stride, level, alone, rule.log_base, POWER=power, **cut)
        merge = Start(ranking.merge_chunks, k, room, total, stride, level, alone, AS_KEYS=False, SMALL=small, **cut)
        in_chunks.append((-(-candidates // chunk), sort, merge))
    play = Start(
        ranking.play, k, room, total, stride, rule.log_base,
        K=width, LEVELS=alone, POWER=power, SMALL=small, num_warps=_between(1, (width << alone) // 256, 32),
    ) if alone >= 0 else None  # fmt: skip
    return _Levels(in_chunks, play)


@cached
def _pool(n: int, k: int, d: int, rule: Rule, few: bool, kind: Kind) -> Start:
    _, places, total, small, stride, room = layout_of(n, k)
    return Start(
        trees.pool, n, k, d, total, stride, room, negligible(torch.float32, n, k), rule.log_base,
        LEAVES=_between(16, places // k, 128), POWER=rule.log_base > 0, SMALL=small,
        **_tile(d, kind[1][0].itemsize, few),
    )  # fmt: skip


def backward(
    values: Tensor, played: Played, gradients: Gradients, rule: Rule, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of values, of scores, and of the temperature's logarithm; None for one that is not wanted."""
    values, (records, like) = values.contiguous(), played
    (batch, n, d), k = values.shape, like.shape[1]
    given = [None if x is None else x.contiguous() for x in (gradients.values, gradients.scores, gradients.weights)]
    grad_values = torch.empty_like(values) if wanted.values and given[0] is not None else None
    grad_scores = like.new_empty((batch, n)) if wanted.scores or wanted.temperature else None
    step = _unpool(batch, n, k, d, rule, grad_values is not None, grad_scores is not None, _kind(values, like, *given))
    scratch = records.new_empty(step.scratch, dtype=torch.float32)
    step.unpool((step.programs + step.emptying, 1), *given, values, records, scratch, grad_values, grad_scores)
    return grad_values, grad_scores, scratch[: step.programs].sum() if wanted.temperature else None


class _Unpool(NamedTuple):
    programs: int  # for slots
    emptying: int  # for tokens that carry no weight
    scratch: int  # numbers
    unpool: Start


@cached
def _unpool(batch: int, n: int, k: int, d: int, rule: Rule, of_values: bool, of_choice: bool, kind: Kind) -> _Unpool:
    levels, _, total, small, stride, _ = layout_of(n, k)
    slots = _between(1, min(128 >> levels, _power_of_two(batch * k // 1024)), 8)  # a program's
    programs, size = batch * -(-k // slots), k * (2 ** (levels + 1) - 1)
    (rows, width), given = _written(d, kind[1][0].itemsize), [one is not None for one in kind[3:]]
    unpool = Start(
        trees.unpool, n, k, d, total, stride, size, programs, negligible(torch.float32, n, k), rule.log_base,
        SLOTS=slots, ROWS=rows, WIDE=_between(16, (slots << levels) // 2, 128), D=width, TOKENS=TOKENS,
        POWER=rule.log_base > 0, HAS_VALUES=given[0], HAS_SCORES=given[1], HAS_WEIGHTS=given[2],
        OF_VALUES=of_values, OF_CHOICE=of_choice, SMALL=small, num_warps=2,
    )  # fmt: skip
    return _Unpool(programs, batch * -(-n // TOKENS), programs + 6 * batch * size, unpool)


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int, sizes: Sizes = SIZES) -> Tensor:
    """See `Backend.pool`."""
    values, weights, slots = values.contiguous(), weights.contiguous(), slots.contiguous()
    batch, n, d = values.shape
    step = _pool_by_slot(n, k, d, sizes, _kind(values, weights, slots))
    keys = weights.new_empty((batch, n), dtype=torch.int64)
    records = weights.new_empty((batch, HEAD), dtype=torch.int32)
    pooled = values.new_empty((batch, k, d))
    step.carriers((batch, 1), weights, slots, keys, records)
    step.sort_few((batch, 1), keys, records)
    for programs, sort, merge in step.in_chunks:
        chunks = torch.empty_like(keys)
        sort((batch, programs), keys, records, chunks)
        merge((batch, programs), keys, records, chunks)
    step.pool((batch * k, 1), values, weights, keys, records, pooled)
    return pooled


class _PoolBySlot(NamedTuple):
    carriers: Start
    sort_few: Start
    in_chunks: list[tuple[int, Start, Start]]  # for rows of more than few carriers
    pool: Start


@cached
def _pool_by_slot(n: int, k: int, d: int, sizes: Sizes, kind: Kind) -> _PoolBySlot:
    block, few = min(_power_of_two(n), 4096), min(sizes.chunk, _power_of_two(n))
    cut: dict[str, Any] = {"CHUNK": few, "PLAYERS": True, "num_warps": _between(1, few // 128, 32)}
    # The players of a ranking of `few` slots, as far as sorting goes.
    sort = Start(ranking.sort_chunks, few, n, HEAD, 0, 0, 0.0, POWER=False, **cut)
    merge = Start(ranking.merge_chunks, few, n, 0, HEAD, 0, 0, AS_KEYS=True, SMALL=False, **cut)
    return _PoolBySlot(
        Start(by_slot.carriers, n, HEAD, N=block, num_warps=_between(1, block // 256, 16)),
        Start(by_slot.sort_few, n, HEAD, S=few, num_warps=cut["num_warps"]),
        [(-(-n // few), sort, merge)] if n > few else [],
        Start(by_slot.pool_listed, n, k, d, HEAD, STEPS=n.bit_length(), **_tile(d, kind[1][0].itemsize)),
    )


def pool_by_slot_backward(
    gradient: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """See `Backend.pool_backward`."""
    gradient, values, weights, slots = (x.contiguous() for x in (gradient, values, weights, slots))
    (batch, n, d), k = values.shape, gradient.shape[1]
    grad_values = torch.empty_like(values) if of_values else None
    grad_weights = torch.empty_like(weights) if of_weights else None
    kind = _kind(values, weights, slots, gradient)
    programs, unpool = _unpool_by_token(batch * n, n, k, d, of_values, of_weights, kind)
    unpool((programs, 1), gradient, values, weights, slots, grad_values, grad_weights)
    return grad_values, grad_weights


@cached
def _unpool_by_token(
    tokens: int, n: int, k: int, d: int, of_values: bool, of_weights: bool, kind: Kind
) -> tuple[int, Start]:
    rows, width = _written(d, kind[1][0].itemsize)
    rows *= 2
    return -(-tokens // rows), Start(
        by_slot.unpool_by_token, tokens, n, k, d, ROWS=rows, D=width, OF_VALUES=of_values, OF_WEIGHTS=of_weights,
        num_warps=4,
    )  # fmt: skip


def _kind(values: Tensor, *others: Tensor | None) -> Kind:
    """What a kernel's version depends on: the device, then of each tensor its dtype and whether 16 divides its
    address, so that 16 bytes can be read at once."""
    tensors = (values, *others)
    return values.device.index, *[None if x is None else (x.dtype, x.data_ptr() % 16 == 0) for x in tensors]


def _few(programs: int) -> bool:
    """Whether programs of few warps would leave much of a GPU without work."""
    return programs < 1024


def _tile(d: int, size: int, few: bool = False) -> dict[str, int]:
    """How many vectors, how many numbers of so many bytes of each, and how many warps a program has that sums vectors:
    the best of those tried on an H200. Many small programs wait for memory side by side."""
    width = _between(16, _power_of_two(d), 256)
    rows, warps = (32, 4) if few else (4, 1 if size == 2 else 2)
    return {"ROWS": _between(rows, rows * 64 // width, 32), "D": width, "num_warps": warps}


def _written(d: int, size: int) -> tuple[int, int]:
    """How many vectors, and how many numbers of each, a program of two warps that writes gradients holds at once."""
    width = _between(16, _power_of_two(d), 512 // size)  # at most what a warp reads at once
    return _between(8, 1024 // width, 32), width


def _power_of_two(x: int) -> int:
    """The smallest one >= x."""
    return 1 << max(0, x - 1).bit_length()


def _between(least: int, x: int, most: int) -> int:
    return max(least, min(x, most))
