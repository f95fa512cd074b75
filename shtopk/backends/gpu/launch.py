"""Successive halving, put together from the kernels. Nothing here waits for the device.

Buffers have the sizes that n players would need. A kernel touches no more of them than its row has players.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from shtopk.backends.face import Answer, Gradients, Wanted
from shtopk.backends.gpu import ranking, trees, unpooling
from shtopk.backends.gpu.field import field
from shtopk.backends.gpu.sizes import (
    SIZES,
    Kind,
    Sizes,
    are_few,
    between,
    cached,
    kind_of,
    layout_of,
    power_of_two,
    read_tile,
    written_tile,
)
from shtopk.backends.gpu.start import Start
from shtopk.backends.tournament import negligible, reach
from shtopk.rule import Rule

BARE = 32  # tokens of a program that writes zeros


class Played(NamedTuple):
    """What a tournament leaves for its backward pass."""

    records: Tensor  # [B, stride] int32
    like: Tensor  # [0, k] in the scores' dtype: it tells both


def forward(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule, sizes: Sizes = SIZES
) -> tuple[Answer, Played]:
    """See `Backend.forward`."""
    values, scores = values.contiguous(), scores.contiguous()
    mask = None if mask is None else mask.contiguous()
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
    kind = kind_of(values, scores, mask, temperature if on_device else None)
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
    _pool(n, k, d, rule, are_few(batch * k), kind)(
        (batch * k, 1), values, records, room, answer.values, answer.scores, answer.mask,
        answer.positions, answer.weights, answer.slots,
    )  # fmt: skip
    return answer, Played(records, new((0, k)))


@cached
def _field(n: int, k: int, rule: Rule, sizes: Sizes, kind: Kind) -> tuple[int, Start]:
    """How many programs a row has, and their start."""
    layout, width, below = layout_of(n, k), power_of_two(n), reach(torch.float32, n, k, rule)
    block, found = min(width, sizes.block), min(width, sizes.found)
    helpful = found < width and min(n, 2 * k if rule.relative else k) <= found // 4
    held = width <= sizes.block // 2 and not helpful
    return 1 + -(-n // block), Start(
        field, n, k, below, layout.room, layout.total, layout.stride,
        num_warps=between(1, width // 256, 16 if held else 8),
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
    width, power = power_of_two(k), rule.log_base > 0
    alone = min(levels, (sizes.alone // width).bit_length() - 1)  # the highest level of one program; -1: none
    in_chunks = []
    for level in range(levels, alone, -1):
        players = level == levels  # those of every row, whatever their level
        candidates = n if players else k << level
        chunk = sizes.chunk if candidates <= 8 * sizes.chunk else 2 * sizes.chunk
        cut: dict[str, Any] = {"CHUNK": chunk, "PLAYERS": players, "num_warps": between(1, chunk // 128, 32)}
        sort = Start(ranking.sort_chunks, k, room, stride, level, alone, rule.log_base, POWER=power, **cut)
        merge = Start(ranking.merge_chunks, k, room, total, stride, level, alone, AS_KEYS=False, SMALL=small, **cut)
        in_chunks.append((-(-candidates // chunk), sort, merge))
    play = Start(
        ranking.play, k, room, total, stride, rule.log_base,
        K=width, LEVELS=alone, POWER=power, SMALL=small, num_warps=between(1, (width << alone) // 256, 32),
    ) if alone >= 0 else None  # fmt: skip
    return _Levels(in_chunks, play)


@cached
def _pool(n: int, k: int, d: int, rule: Rule, few: bool, kind: Kind) -> Start:
    _, places, total, small, stride, room = layout_of(n, k)
    return Start(
        trees.pool, n, k, d, total, stride, room, negligible(torch.float32, n, k), rule.log_base,
        LEAVES=between(16, places // k, 128), POWER=rule.log_base > 0, SMALL=small,
        **read_tile(d, kind[1][0].itemsize, few),
    )  # fmt: skip


def backward(
    values: Tensor, played: Played, gradients: Gradients, rule: Rule, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of values, of scores and of the temperature's logarithm; None for one that is not wanted."""
    values, (records, like) = values.contiguous(), played
    (batch, n, d), k = values.shape, like.shape[1]
    given = [None if x is None else x.contiguous() for x in (gradients.values, gradients.scores, gradients.weights)]
    grad_values = torch.empty_like(values) if wanted.values and given[0] is not None else None
    grad_scores = like.new_empty((batch, n)) if wanted.scores or wanted.temperature else None
    step = _unpool(
        batch, n, k, d, rule, grad_values is not None, grad_scores is not None, kind_of(values, like, *given)
    )
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
    slots = between(1, min(128 >> levels, power_of_two(batch * k // 1024)), 8)  # a program's
    programs, size = batch * -(-k // slots), k * (2 ** (levels + 1) - 1)
    (rows, width), given = written_tile(d, kind[1][0].itemsize), [one is not None for one in kind[3:]]
    unpool = Start(
        unpooling.unpool, n, k, d, total, stride, size, programs, negligible(torch.float32, n, k), rule.log_base,
        SLOTS=slots, ROWS=rows, WIDE=between(16, (slots << levels) // 2, 128), D=width, TOKENS=BARE,
        POWER=rule.log_base > 0, HAS_VALUES=given[0], HAS_SCORES=given[1], HAS_WEIGHTS=given[2],
        OF_VALUES=of_values, OF_CHOICE=of_choice, SMALL=small, num_warps=2,
    )  # fmt: skip
    return _Unpool(programs, batch * -(-n // BARE), programs + 6 * batch * size, unpool)
