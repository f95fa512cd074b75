"""Who plays: the tokens of a row that can have a weight above rounding error, by their scores. One program a row.

Scores are compared as the int32 that rises with them, see pairs.py.
"""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import BYE, key_of, rising, score_of
from shtopk.backends.gpu.sorting import at, falling


@triton.jit
def _spread(ranked, kept, both, S: tl.constexpr):
    """By how much the `kept` best scores exceed the next up to `both`, on average; see tournament._spread.

    ranked [S] has the best ones, falling.
    """
    place = tl.arange(0, S)
    score = score_of(ranked)
    real = (score > BYE) & (place < both)
    best, following = real & (place < kept), real & (place >= kept)
    per_best = 1.0 / tl.maximum(tl.sum(best.to(tl.int32), 0), 1).to(tl.float32)
    per_next = 1.0 / tl.maximum(tl.sum(following.to(tl.int32), 0), 1).to(tl.float32)
    ahead = tl.sum(tl.where(best, score * per_best, tl.where(following, -score * per_next, 0.0)), 0)
    largest = tl.max(tl.where(real, tl.abs(score), 0.0), 0)
    return tl.maximum(tl.maximum(ahead, largest * 9.5367431640625e-07), 1e-6)


@triton.jit
def _largest(r, first, second, BITS: tl.constexpr):
    """The first-th and the second-th largest of r [N], N < 2^15: found by some bits at a time, both counts at once."""
    u = r.to(tl.uint32, bitcast=True) ^ 0x80000000
    digits = tl.arange(0, 1 << BITS).to(tl.uint32)
    one, two = tl.full([], 0, tl.uint32), tl.full([], 0, tl.uint32)
    shift = 32 - BITS
    while shift >= 0:
        more = u[None, :] >= (one | (digits << shift))[:, None]
        most = u[None, :] >= (two | (digits << shift))[:, None]
        counts = tl.sum(more.to(tl.int32) + (most.to(tl.int32) << 16), 1)
        one = one | ((tl.sum(((counts & 0xFFFF) >= first).to(tl.int32), 0) - 1).to(tl.uint32) << shift)
        two = two | ((tl.sum(((counts >> 16) >= second).to(tl.int32), 0) - 1).to(tl.uint32) << shift)
        shift -= BITS
    return (one ^ 0x80000000).to(tl.int32, bitcast=True), (two ^ 0x80000000).to(tl.int32, bitcast=True)


@triton.jit
def _spread_of_any(r, kth, last, kept, both):
    """`_spread` of scores in any order: r [N]; kth, last: the kept-th and the both-th best of them."""
    score = score_of(r)
    real = score > BYE
    number = tl.sum(real.to(tl.int32), 0)
    per_best = 1.0 / tl.maximum(tl.minimum(kept, number), 1).to(tl.float32)
    per_next = 1.0 / tl.maximum(tl.minimum(both, number) - kept, 1).to(tl.float32)
    above, middle = r > kth, (r < kth) & (r > last)
    n_above, n_least = tl.sum(above.to(tl.int32), 0), tl.sum((r >= kth).to(tl.int32), 0)
    best = tl.sum(tl.where(above & real, score * per_best, 0.0), 0)
    best += tl.where(score_of(kth) > BYE, score_of(kth) * per_best * (kept - n_above).to(tl.float32), 0.0)
    extra = tl.minimum(n_least, both) - kept  # as good as the k-th, but not of the k
    rest = both - kept - extra - tl.sum(middle.to(tl.int32), 0)  # as good as the 2 k-th
    following = tl.sum(tl.where(middle & real, score * per_next, 0.0), 0)
    following += tl.where(score_of(kth) > BYE, score_of(kth) * per_next * extra.to(tl.float32), 0.0)
    following += tl.where(score_of(last) > BYE, score_of(last) * per_next * rest.to(tl.float32), 0.0)
    largest = tl.max(tl.where((r >= last) & real, tl.abs(score), 0.0), 0)
    return tl.maximum(tl.maximum(best - following, largest * 9.5367431640625e-07), 1e-6)


@triton.jit
def field(
    scores, mask, temperature, divisors, counts, keys, weights, slots, n, k, reach, cap,
    N: tl.constexpr, GROUPS: tl.constexpr, HAS_MASK: tl.constexpr, RELATIVE: tl.constexpr, ALL: tl.constexpr,
    ON_DEVICE: tl.constexpr,
):  # fmt: skip
    """The row's divisor, and the keys of its players in the order of tokens; weights and slots are emptied.

    The best scores of GROUPS groups are scores of the row: their wanted-th best is a lower bound of the row's, and
    only what reaches it has to be sorted. GROUPS = N: each token is a group; 0: too many are wanted for it to help.
    """
    row = tl.program_id(0).to(tl.int64)
    keys += row * cap
    i = tl.arange(0, N)
    inside = i < n
    score = tl.load(scores + row * n + i, mask=inside, other=0.0).to(tl.float32)
    bound: tl.constexpr = 4.2535293329816107e37  # finfo.max / 8
    score = tl.where(score > bound, bound, score)
    score = tl.where(score < -bound, -bound, score)
    score = tl.where(score == 0, 0.0, score)  # no -0
    real = inside
    if HAS_MASK:
        real = inside & (tl.load(mask + row * n + i, mask=inside, other=0) != 0)
    score = tl.where(real, score, BYE)
    divisor = tl.load(temperature).to(tl.float32) if ON_DEVICE else temperature + 0.0
    playing = real
    if RELATIVE or not ALL:
        r = rising(score)
        kept, both = tl.minimum(k, n), tl.minimum(2 * k, n)
        if GROUPS == 0:
            kth, last = _largest(r, kept, both, 2)
            if RELATIVE:
                divisor *= _spread_of_any(r, kth, last, kept, both)
        elif GROUPS == N:
            ranked = falling(r, N)
            kth = at(ranked, kept - 1, N)
            if RELATIVE:
                divisor *= _spread(ranked, kept, both, N)
        else:
            ranked = falling(tl.max(tl.reshape(r, [N // GROUPS, GROUPS]), 0), GROUPS)
            if RELATIVE:
                close = r >= at(ranked, both - 1, GROUPS)
                number = tl.sum(close.to(tl.int32), 0)
                if number <= GROUPS:
                    tl.store(keys + tl.cumsum(close.to(tl.int32), 0) - 1, r.to(tl.int64), mask=close)
                    tl.debug_barrier()
                    j = tl.arange(0, GROUPS)
                    few = tl.load(keys + j, mask=j < number, other=-(2**31)).to(tl.int32)
                    ranked = falling(few, GROUPS)
                    kth = at(ranked, kept - 1, GROUPS)
                    divisor *= _spread(ranked, kept, both, GROUPS)
                    tl.debug_barrier()
                else:
                    kth, last = _largest(r, kept, both, 2)
                    divisor *= _spread_of_any(r, kth, last, kept, both)
            else:
                kth = at(ranked, kept - 1, GROUPS)
    divisor = tl.minimum(tl.maximum(divisor, 1.1754943508222875e-38), 3.3230699894e35)
    if not ALL:
        playing = real & (score >= tl.maximum(score_of(kth) - reach * divisor, BYE / 2))
    tl.store(keys + tl.cumsum(playing.to(tl.int32), 0) - 1, key_of(score, i), mask=playing)
    tl.store(counts + row, tl.sum(playing.to(tl.int32), 0))
    tl.store(divisors + row, divisor)
    tl.store(weights + row * n + i, tl.zeros([N], tl.float32), mask=inside)
    tl.store(slots + row * n + i, tl.full([N], -1, tl.int64), mask=inside)
