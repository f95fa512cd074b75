"""The rounds: sort, let the best meet the worst, sort what they become, until k are left.

A row's record (see pairs.py) holds a ranking of all its levels, from the slots (level 0, k places) to the players
(level R, the only one that may have fewer candidates than its k * 2^R places). A ranking has the scores, falling, and
where each candidate comes from. At level R that is its token. At other levels it is the number j of its pair, in which
candidate j of the level above met candidate 2 m - 1 - j.
"""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import (
    BYE,
    NO_KEY,
    head_of,
    key_number,
    key_of,
    key_score,
    level_start,
    mixture,
    origins_of,
    rounds_of,
)
from shtopk.backends.gpu.sorting import falling


@triton.jit
def _pairs(ranked, j, level, rounds, count, k, divisor, log_base, POWER: tl.constexpr):
    """The keys of the pairs j of a level, made of the ranking above."""
    m = k << level
    above = ranked + level_start(level + 1, k)
    valid = tl.where(level + 1 == rounds, count, 2 * m)
    winner = tl.load(above + j, mask=(j < m) & (j < valid), other=BYE)
    loser = tl.load(above + (2 * m - 1 - j), mask=(j < m) & (2 * m - 1 - j < valid), other=BYE)
    return tl.where(j < m, key_of(mixture(winner, loser, divisor, log_base, POWER), j), NO_KEY)


@triton.jit
def _rank(keys, ranked, origins, level, rounds, count, k, divisor, log_base, S: tl.constexpr, POWER: tl.constexpr):
    """Rank a level of at most S places in one go."""
    j = tl.arange(0, S)
    if level == rounds:
        key = tl.load(keys + j, mask=j < count, other=NO_KEY)
        valid = count
    else:
        key = _pairs(ranked, j, level, rounds, count, k, divisor, log_base, POWER)
        valid = k << level
    key = falling(key, S)
    at = level_start(level, k) + j
    tl.store(ranked + at, key_score(key), mask=j < valid)
    tl.store(origins + at, key_number(key).to(origins.dtype.element_ty), mask=j < valid)


@triton.jit(do_not_specialize=["cap", "total"])
def play(
    keys, records, k, cap, total, stride, log_base,
    K: tl.constexpr, LEVELS: tl.constexpr, POWER: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """Play all levels up to LEVELS, one program for each row; higher levels are ranked already.

    K is the next power of two of k.
    """
    row = tl.program_id(0).to(tl.int64)
    keys += row * cap
    count, divisor, ranked = head_of(records, row, stride)
    origins = origins_of(ranked, total, SMALL)
    rounds = rounds_of(count, k)
    for down in tl.static_range(LEVELS + 1):
        if LEVELS - down <= rounds:
            _rank(
                keys, ranked, origins, LEVELS - down, rounds, count, k, divisor, log_base, K << (LEVELS - down), POWER
            )
            tl.debug_barrier()


@triton.jit(do_not_specialize=["cap", "level", "small"])
def sort_chunks(
    keys, records, chunks, k, cap, stride, level, small, log_base,
    CHUNK: tl.constexpr, PLAYERS: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """Sort each chunk of a level above level `small`, of the players or of a level of pairs. One program for each
    chunk.

    A row that has no such level is left alone.
    """
    row = tl.program_id(0).to(tl.int64)
    count, divisor, ranked = head_of(records, row, stride)
    rounds = rounds_of(count, k)
    j = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    if PLAYERS:
        if (rounds > small) & (tl.program_id(1) * CHUNK < count):
            key = tl.load(keys + row * cap + j, mask=j < count, other=NO_KEY)
            tl.store(chunks + row * cap + j, falling(key, CHUNK), mask=j < count)
    else:
        if (rounds > level) & (tl.program_id(1) * CHUNK < (k << level)):
            key = _pairs(ranked, j, level, rounds, count, k, divisor, log_base, POWER)
            tl.store(chunks + row * cap + j, falling(key, CHUNK), mask=j < (k << level))


@triton.jit(do_not_specialize=["cap", "total", "level", "small"])
def merge_chunks(
    keys, records, chunks, k, cap, total, stride, level, small,
    CHUNK: tl.constexpr, PLAYERS: tl.constexpr, AS_KEYS: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """Put each key of a sorted chunk into its place among all, by counting the larger keys in each other chunk.

    AS_KEYS: write them into `keys`, where they came from.
    """
    row = tl.program_id(0).to(tl.int64)
    count, _, ranked = head_of(records, row, stride)
    rounds = rounds_of(count, k)
    active = rounds > small
    valid = count
    at = rounds
    if not PLAYERS:
        active = rounds > level
        valid = k << level
        at = level
    if active & (tl.program_id(1) * CHUNK < valid):
        chunks += row * cap
        j = tl.arange(0, CHUNK)
        here = tl.program_id(1) * CHUNK + j
        key = tl.load(chunks + here, mask=here < valid, other=NO_KEY)
        # Four chunks are searched side by side: what takes long is waiting for memory.
        other = tl.arange(0, 4) * CHUNK
        rank = j
        start = 0
        while start < valid:
            begin = start + other
            size = tl.minimum(tl.maximum(valid - begin, 0), CHUNK)
            size = tl.where(begin == tl.program_id(1) * CHUNK, 0, size)  # in its own it stands at j
            low = tl.zeros([CHUNK, 4], tl.int32)
            high = low + size[None, :]
            width = CHUNK
            while width > 0:
                middle = (low + high) >> 1
                open_ = low < high
                larger = tl.load(chunks + begin[None, :] + middle, mask=open_, other=NO_KEY) > key[:, None]
                low = tl.where(open_ & larger, middle + 1, low)
                high = tl.where(open_ & (larger == 0), middle, high)
                width >>= 1
            rank += tl.sum(low, 1)
            start += 4 * CHUNK
        if AS_KEYS:
            tl.store(keys + row * cap + rank, key, mask=here < valid)
        else:
            to = level_start(at, k) + rank
            origins = origins_of(ranked, total, SMALL)
            tl.store(ranked + to, key_score(key), mask=here < valid)
            tl.store(origins + to, key_number(key).to(origins.dtype.element_ty), mask=here < valid)
