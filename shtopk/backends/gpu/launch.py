"""Successive halving and pooling by slot, put together from the kernels; nothing here waits for the device.

Buffers have the sizes that all n players would need, and a kernel touches no more of them than its row has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.backends import tournament
from shtopk.backends.face import Answer, Gradients, Wanted
from shtopk.backends.gpu import by_slot, ranking, trees
from shtopk.backends.gpu.field import field
from shtopk.backends.gpu.start import start
from shtopk.backends.tournament import bye_score, negligible, reach, rounds_between
from shtopk.candidates import bounded
from shtopk.rule import Rule


class Sizes(NamedTuple):
    """How work is cut; powers of two."""

    row: int = 16384  # tokens that one program looks through
    alone: int = 1024  # places that one program ranks, and keys that it sorts; a level of more is sorted in chunks
    groups: int = 1024  # of a row's tokens, whose best ones bound the k-th best


SIZES = Sizes()


class Played(NamedTuple):
    """What a tournament leaves for its backward pass; see ranking.py."""

    counts: Tensor  # [B] int32, players
    divisors: Tensor  # [B] float32
    ranked: Tensor  # [B, k * (2^R - 1) + n] float32, scores
    origins: Tensor  # [B, k * (2^R - 1) + n] int16; int32 where n or k is 2^15 or more


def forward(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule, sizes: Sizes = SIZES
) -> tuple[Answer, Played]:
    """See `Backend.forward`."""
    values = values.contiguous()
    batch, n, d = values.shape
    places, new = k << rounds_between(n, k), scores.new_empty
    answer = Answer(
        values=values.new_empty(batch, k, d),
        scores=new(batch, k),
        mask=new((batch, k), dtype=torch.bool),
        positions=new((batch, k), dtype=torch.int64),
        weights=new((batch, n), dtype=torch.float32),
        slots=new((batch, n), dtype=torch.int64),
    )
    played = play(scores, mask, temperature, k, rule, answer.weights, answer.slots, sizes)
    leaves = new((batch, 2, places), dtype=torch.float32)  # weights, and tokens as bits
    rows, width = _tile(values)
    start(
        trees.pool, (batch * k,), values, *played, leaves, answer.values, answer.scores,
        answer.mask.view(torch.int8), answer.positions, answer.weights, answer.slots, n, k, d, played.ranked.shape[1],
        places, negligible(torch.float32, n, k), rule.log_base,
        LEAVES=_between(16, places // k, 128), ROWS=rows, D=width, POWER=rule.log_base > 0, num_warps=1,
    )  # fmt: skip
    return answer, played


def play(
    scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule, weights: Tensor, slots: Tensor,
    sizes: Sizes = SIZES,
) -> Played:  # fmt: skip
    """Rank all levels, and empty weights and slots [B, n]."""
    scores = scores.contiguous()
    batch, n = scores.shape
    if temperature.device.type != "cpu":
        temperature = temperature.to(scores.device, non_blocking=True)
    total, new = k * (2 ** rounds_between(n, k) - 1) + n, scores.new_empty
    played = Played(
        new(batch, dtype=torch.int32),
        new(batch, dtype=torch.float32),
        new((batch, total), dtype=torch.float32),
        new((batch, total), dtype=torch.int16 if max(n, k) < 2**15 else torch.int32),
    )
    if n > sizes.row:
        weights.zero_(), slots.fill_(-1)
        keys = _players(bounded(scores, mask), temperature, k, rule, played)
    else:
        keys = new((batch, n), dtype=torch.int64)
        mask = None if mask is None else mask.contiguous().view(torch.int8)
        width, below = _power_of_two(n), reach(torch.float32, n, k, rule)
        wanted, groups = min(n, 2 * k if rule.relative else k), sizes.groups
        groups = width if width <= 2 * groups else groups if wanted <= groups // 4 else 0
        on_device = temperature.device == scores.device
        start(
            field, (batch,), scores, mask, temperature if on_device else float(temperature), played.divisors,
            played.counts, keys, weights, slots, n, k, below, n, N=width, GROUPS=groups, HAS_MASK=mask is not None,
            RELATIVE=rule.relative, ALL=below < 0, ON_DEVICE=on_device, num_warps=_between(1, width // 256, 16),
        )  # fmt: skip
    _rank(keys, played, n, k, rule, sizes)
    return played


def _players(scores: Tensor, temperature: Tensor, k: int, rule: Rule, played: Played) -> Tensor:
    """Kernel `field` by tensor operations, for rows too long for one program: the players' keys [B, n + 1], in the
    order of tokens; what does not play goes to the last place."""
    scores = scores.clamp(min=bye_score(scores))
    n = scores.shape[-1]
    divisor, lowest = tournament.bounds(scores, temperature, k, rule)
    played.divisors.unsqueeze(-1).zero_().add_(divisor)  # which may be a number on the CPU: copying it would wait
    playing = scores >= (bye_score(scores) / 2 if lowest is None else lowest)
    played.counts.copy_(playing.sum(-1))
    bits = (scores + 0.0).view(torch.int32)  # no -0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    keys = (rising << 32) | (0x7FFFFFFF - torch.arange(n, device=scores.device))
    place = torch.where(playing, playing.cumsum(-1) - 1, n)
    return keys.new_empty(len(keys), n + 1).scatter_(-1, place, keys)


def _rank(keys: Tensor, played: Played, n: int, k: int, rule: Rule, sizes: Sizes) -> None:
    """Fill in the ranking from the players' keys."""
    (batch, cap), total = keys.shape, played.ranked.shape[1]
    levels, width, power = rounds_between(n, k), _power_of_two(k), rule.log_base > 0
    alone = min(levels, (sizes.alone // width).bit_length() - 1)  # the highest level that one program ranks; -1: none
    warps = _between(1, sizes.alone // 128, 32)
    if alone < levels:
        chunks = torch.empty_like(keys)
        for level in range(levels, alone, -1):
            players = level == levels  # those of every row, whatever their level
            grid = batch, -(-(n if players else k << level) // sizes.alone)
            start(
                ranking.sort_chunks, grid, keys, *played[:3], chunks, k, cap, total, level, alone, rule.log_base,
                CHUNK=sizes.alone, PLAYERS=players, POWER=power, num_warps=warps,
            )  # fmt: skip
            start(
                ranking.merge_chunks, grid, keys, played.counts, played.ranked, played.origins, chunks, k, cap, total,
                level, alone, CHUNK=sizes.alone, PLAYERS=players, AS_KEYS=False, num_warps=warps,
            )  # fmt: skip
    if alone >= 0:
        start(
            ranking.play, (batch,), keys, *played, k, cap, total, rule.log_base,
            K=width, LEVELS=alone, POWER=power, num_warps=_between(1, (width << alone) // 128, 32),
        )  # fmt: skip


def backward(
    values: Tensor, k: int, played: Played, gradients: Gradients, rule: Rule, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of values, of scores, and of the temperature's logarithm; None for one that is not wanted."""
    values = values.contiguous()
    batch, n, d = values.shape
    levels, new = rounds_between(n, k), played.ranked.new_empty
    of_choice = wanted.scores or wanted.temperature
    slots = _between(1, min(128 >> levels, _power_of_two(batch * k // 1024)), 8)  # a program's
    programs, size = batch * -(-k // slots), k * (2 ** (levels + 1) - 1)
    scratch = new(batch, 6, size)
    grad_values = _zeros_like(values) if wanted.values and gradients.values is not None else None
    grad_scores = played.ranked.new_zeros(batch, n) if of_choice else None
    of_log = new(programs) if of_choice else None
    given = [None if x is None else x.contiguous() for x in (gradients.values, gradients.scores, gradients.weights)]
    rows, width = _tile(values)
    start(
        trees.unpool, (programs,), *given, values, *played, scratch, grad_values, grad_scores, of_log,
        n, k, d, played.ranked.shape[1], size, negligible(torch.float32, n, k), rule.log_base,
        SLOTS=slots, ROWS=2 * rows, WIDE=_between(16, (slots << levels) // 2, 128), D=width,
        POWER=rule.log_base > 0, HAS_VALUES=given[0] is not None, HAS_SCORES=given[1] is not None,
        HAS_WEIGHTS=given[2] is not None, OF_VALUES=grad_values is not None, OF_CHOICE=of_choice, num_warps=2,
    )  # fmt: skip
    return grad_values, grad_scores, of_log.sum() if of_log is not None and wanted.temperature else None


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int, sizes: Sizes = SIZES) -> Tensor:
    """See `Backend.pool`."""
    values, weights, slots = values.contiguous(), weights.contiguous(), slots.contiguous()
    (batch, n, d), block = values.shape, min(_power_of_two(values.shape[1]), 4096)
    keys, counts = slots.new_empty((batch, n), dtype=torch.int64), slots.new_empty(batch, dtype=torch.int32)
    start(
        by_slot.carriers, (batch,), weights, slots, keys, counts, n, N=block, num_warps=_between(1, block // 256, 16)
    )
    few = min(sizes.alone, _power_of_two(n))
    warps = _between(1, few // 128, 32)
    start(by_slot.sort_few, (batch,), keys, counts, n, S=few, num_warps=warps)
    if n > few:  # rows of more: the players of a ranking of `few` places, as far as sorting goes
        chunks, grid = torch.empty_like(keys), (batch, -(-n // few))
        start(
            ranking.sort_chunks, grid, keys, counts, weights, weights, chunks, few, n, 0, 0, 0, 0.0,
            CHUNK=few, PLAYERS=True, POWER=False, num_warps=warps,
        )  # fmt: skip
        start(
            ranking.merge_chunks, grid, keys, counts, weights, weights, chunks, few, n, 0, 0, 0,
            CHUNK=few, PLAYERS=True, AS_KEYS=True, num_warps=warps,
        )  # fmt: skip
    pooled = values.new_empty(batch, k, d)
    rows, width = _tile(values)
    start(
        by_slot.pool_listed, (batch * k,), values, weights, keys, counts, pooled, n, k, d,
        ROWS=rows, D=width, STEPS=n.bit_length(), num_warps=1,
    )  # fmt: skip
    return pooled


def pool_by_slot_backward(
    gradient: Tensor, values: Tensor, weights: Tensor, slots: Tensor, of_values: bool, of_weights: bool
) -> tuple[Tensor | None, Tensor | None]:
    """See `Backend.pool_backward`."""
    gradient, values, weights, slots = (x.contiguous() for x in (gradient, values, weights, slots))
    (batch, n, d), k = values.shape, gradient.shape[1]
    grad_values = torch.empty_like(values) if of_values else None
    grad_weights = torch.empty_like(weights) if of_weights else None
    (rows, width), tokens = _tile(values), batch * n
    rows *= 4
    start(
        by_slot.unpool_by_token, (-(-tokens // rows),), gradient, values, weights, slots, grad_values, grad_weights,
        tokens, n, k, d, ROWS=rows, D=width, OF_VALUES=of_values, OF_WEIGHTS=of_weights, num_warps=4,
    )  # fmt: skip
    return grad_values, grad_weights


def _tile(values: Tensor) -> tuple[int, int]:
    """How many vectors, and how many numbers of each, a program of few warps holds at once: the best of those tried on
    an H200. Many small programs wait for memory side by side."""
    widest = 512 // values.element_size()  # what a warp reads at once
    width = _between(16, _power_of_two(values.shape[-1]), widest)
    return _between(4, 512 // width, 16), width


def _zeros_like(x: Tensor) -> Tensor:
    """Zeros, written as numbers of 4 bytes: torch takes longer for those of 2."""
    zeros = x.new_empty(x.shape)
    (zeros.view(torch.int32) if x.shape[-1] * x.element_size() % 4 == 0 else zeros).zero_()
    return zeros


def _power_of_two(x: int) -> int:
    """The smallest one >= x."""
    return 1 << max(0, x - 1).bit_length()


def _between(least: int, x: int, most: int) -> int:
    return max(least, min(x, most))
