"""The field: which tokens of a row can have a weight above rounding error, by their scores.

One program for each row reads the row again for each question, a block at a time. Scores are compared as the int32
that rises with them, see pairs.py.
"""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import BYE, carriers_of, head_of, key_of, rising, score_of
from shtopk.backends.gpu.sorting import at, falling

LOWEST: tl.constexpr = tl.constexpr(-(2**31))
LEAST: tl.constexpr = tl.constexpr(-(2**31) + 2**24)  # rising(BYE): of a bye


@triton.jit
def _rising(scores, mask, i, n, HAS_MASK: tl.constexpr):
    """The scores of tokens i as int32; that of a bye where there is no real token."""
    inside = i < n
    score = tl.load(scores + i, mask=inside, other=0.0).to(tl.float32)
    bound: tl.constexpr = 4.2535293329816107e37  # finfo.max / 8
    score = tl.where(score > bound, bound, score)
    score = tl.where(score < -bound, -bound, score)
    score = tl.where(score == 0, 0.0, score)  # no -0
    if HAS_MASK:
        inside = inside & tl.load(mask + i, mask=inside, other=False)
    return rising(tl.where(inside, score, BYE))


@triton.jit
def _best_of_groups(scores, mask, n, BLOCK: tl.constexpr, GROUPS: tl.constexpr, HAS_MASK: tl.constexpr):
    """The best score of each of GROUPS groups of tokens."""
    best = tl.full([GROUPS], LOWEST, tl.int32)
    start = 0
    while start < n:
        r = _rising(scores, mask, start + tl.arange(0, BLOCK), n, HAS_MASK)
        best = tl.maximum(best, tl.max(tl.reshape(r, [BLOCK // GROUPS, GROUPS]), 0))
        start += BLOCK
    return best


@triton.jit
def _collect(scores, mask, found, bound, n, BLOCK: tl.constexpr, HAS_MASK: tl.constexpr):
    """Write the scores that reach the bound to `found`, and count them."""
    number = 0
    start = 0
    while start < n:
        i = start + tl.arange(0, BLOCK)
        r = _rising(scores, mask, i, n, HAS_MASK)
        close = (r >= bound) & (i < n)
        tl.store(found + number + tl.cumsum(close.to(tl.int32), 0) - 1, r, mask=close)
        number += tl.sum(close.to(tl.int32), 0)
        start += BLOCK
    tl.debug_barrier()
    return number


@triton.jit
def _reaching(r, one, two, shift, SMALL: tl.constexpr, BOTH: tl.constexpr):
    """How many of r reach `one`, and how many `two`, with each of the digits 0 to 3 at `shift`: [4], [4]."""
    digits = tl.arange(0, 4).to(tl.uint32) << shift
    u = (r.to(tl.uint32, bitcast=True) ^ 0x80000000)[None, :]
    of_one = (u >= (one | digits)[:, None]).to(tl.int32)
    of_two = (u >= (two | digits)[:, None]).to(tl.int32)
    if not BOTH:
        return tl.sum(of_one, 1), tl.zeros([4], tl.int32)
    elif SMALL:  # both numbers fit into one
        of_both = tl.sum(of_one + (of_two << 16), 1)
        return of_both & 0xFFFF, of_both >> 16
    else:
        return tl.sum(of_one, 1), tl.sum(of_two, 1)


@triton.jit
def _bound(u, LOW: tl.constexpr):
    """A bound [] uint32 as the int32 of a score; a bound that no real score can be becomes that of a bye.

    The low bits of a score in half precision are all alike: they are set if it is negative.
    """
    u = tl.where(u < 0x80000000, u | ((1 << LOW) - 1), u)
    r = (u ^ 0x80000000).to(tl.int32, bitcast=True)
    return tl.where(r < LEAST + 2**16, LEAST, r)


@triton.jit
def _largest(
    found, r, number, first, second,
    BLOCK: tl.constexpr, HELD: tl.constexpr, SMALL: tl.constexpr, BOTH: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Two bounds, which `first` and `second` of the scores reach.

    If ties leave no such bound, it is the first-th or the second-th largest score itself. Two bits of both bounds are
    found at a time. HELD: the scores are r [BLOCK]; else they are read from `found` each time.
    """
    one, two = tl.full([], 0, tl.uint32), tl.full([], 0, tl.uint32)
    reach_one, reach_two = number, number
    if not BOTH:
        reach_two = second
    shift = 30
    while (shift >= LOW) & ((reach_one != first) | (reach_two != second)):
        if HELD:
            of_one, of_two = _reaching(r, one, two, shift, SMALL, BOTH)
        else:
            of_one, of_two = tl.zeros([4], tl.int32), tl.zeros([4], tl.int32)
            start = 0
            while start < number:
                j = start + tl.arange(0, BLOCK)
                more, most = _reaching(tl.load(found + j, mask=j < number, other=LOWEST), one, two, shift, SMALL, BOTH)
                of_one += more
                of_two += most
                start += BLOCK
        one = one | ((tl.sum((of_one >= first).to(tl.int32), 0) - 1).to(tl.uint32) << shift)
        reach_one = tl.min(tl.where(of_one >= first, of_one, 0x7FFFFFFF), 0)
        if BOTH:
            two = two | ((tl.sum((of_two >= second).to(tl.int32), 0) - 1).to(tl.uint32) << shift)
            reach_two = tl.min(tl.where(of_two >= second, of_two, 0x7FFFFFFF), 0)
        shift -= 2
    return _bound(one, LOW), _bound(two, LOW)


@triton.jit
def _ranked(r, first, second, S: tl.constexpr):
    """The first-th and the second-th largest of r [S]."""
    ranked = falling(r, S)
    return at(ranked, first - 1, S), at(ranked, second - 1, S)


@triton.jit
def _spread(found, r, number, kth, last, kept, both, BLOCK: tl.constexpr, HELD: tl.constexpr):
    """By how much the `kept` best scores exceed the next ones up to `both`, on average; see tournament.spread.

    kth and last are the kept-th and the both-th best scores, or bounds that so many scores reach. `_largest` explains
    found, r and HELD.
    """
    above, ties, middle, real = 0, 0, 0, 0  # better than the k-th, equal, between it and the last; no bye
    of_best, of_next, largest = 0.0, 0.0, 0.0  # means as of full numbers: a sum of large scores would overflow
    per_best, per_next = 1.0 / kept.to(tl.float32), 1.0 / tl.maximum(both - kept, 1).to(tl.float32)
    start = 0
    while start < number:
        j = start + tl.arange(0, BLOCK)
        x = r if HELD else tl.load(found + j, mask=j < number, other=LOWEST)
        score = tl.where(j < number, score_of(x), BYE)
        candidate = score > BYE
        best, following = (x > kth) & candidate, (x < kth) & (x > last) & candidate
        of_best += tl.sum(tl.where(best, score * per_best, 0.0), 0)
        of_next += tl.sum(tl.where(following, score * per_next, 0.0), 0)
        largest = tl.maximum(largest, tl.max(tl.where((x >= last) & candidate, tl.abs(score), 0.0), 0))
        above += tl.sum((x > kth).to(tl.int32), 0)
        ties += tl.sum((x == kth).to(tl.int32), 0)
        middle += tl.sum(((x < kth) & (x > last)).to(tl.int32), 0)
        real += tl.sum(candidate.to(tl.int32), 0)
        start += BLOCK
    extra = tl.minimum(above + ties, both) - kept  # as good as the k-th, but not of the k
    rest = both - kept - extra - middle  # as good as the last
    if score_of(kth) > BYE:
        of_best += score_of(kth) * per_best * (kept - above).to(tl.float32)
        of_next += score_of(kth) * per_next * extra.to(tl.float32)
    if score_of(last) > BYE:
        of_next += score_of(last) * per_next * rest.to(tl.float32)
    n_best, n_next = tl.maximum(tl.minimum(kept, real), 1), tl.maximum(tl.minimum(both, real) - kept, 1)
    of_best *= kept.to(tl.float32) / n_best.to(tl.float32)
    of_next *= tl.maximum(both - kept, 1).to(tl.float32) / n_next.to(tl.float32)
    return tl.maximum(tl.maximum(of_best - of_next, largest * 9.5367431640625e-07), 1e-6)


@triton.jit
def _empty(row, records, weights, slots, n, i, total, stride, SMALL: tl.constexpr):
    """Empty everything that has a place for each of tokens i: no weight, in no slot."""
    _, _, ranked = head_of(records, row, stride)
    tl.store(weights + row * n + i, tl.zeros(i.shape, tl.float32), mask=i < n)
    tl.store(slots + row * n + i, tl.full(i.shape, -1, tl.int64), mask=i < n)
    tl.store(carriers_of(ranked, total, SMALL) + i, tl.zeros(i.shape, tl.int8), mask=i < n)


@triton.jit
def _find(
    scores, mask, divisor, record, keys, n, k, reach,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, FOUND: tl.constexpr, HELD: tl.constexpr, HAS_MASK: tl.constexpr,
    RELATIVE: tl.constexpr, ALL: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """`field` for one row; divisor is the temperature."""
    LOW: tl.constexpr = (
        16 if scores.dtype.element_ty == tl.bfloat16 else 12 if scores.dtype.element_ty == tl.float16 else 0
    )
    kth = tl.full([], LOWEST, tl.int32)
    if RELATIVE or not ALL:
        kept, both = tl.minimum(k, n), tl.minimum(2 * k, n)
        if HELD:
            i = tl.arange(0, BLOCK)
            r = tl.where(i < n, _rising(scores, mask, i, n, HAS_MASK), LOWEST)
            if BLOCK <= FOUND:
                kth, last = _ranked(r, kept, both, BLOCK)
            else:
                kth, last = _largest(scores, r, n, kept, both, BLOCK, True, SMALL, RELATIVE, LOW)
            if RELATIVE:
                divisor *= _spread(scores, r, n, kth, last, kept, both, BLOCK, True)
        else:
            if GROUPS > 0:
                best = _best_of_groups(scores, mask, n, BLOCK, GROUPS, HAS_MASK)
                kth, last = _ranked(best, kept, both, GROUPS)
            if RELATIVE or GROUPS == 0:
                found = keys.to(tl.pointer_type(tl.int32), bitcast=True)  # until keys are written there
                number = _collect(scores, mask, found, last if GROUPS > 0 else kth, n, BLOCK, HAS_MASK)
                if number <= FOUND:
                    j = tl.arange(0, FOUND)
                    r = tl.load(found + j, mask=j < number, other=LOWEST)
                    kth, last = _ranked(r, kept, both, FOUND)
                    if RELATIVE:
                        divisor *= _spread(found, r, number, kth, last, kept, both, FOUND, True)
                else:
                    kth, last = _largest(found, 0, number, kept, both, BLOCK, False, SMALL, RELATIVE, LOW)
                    if RELATIVE:
                        divisor *= _spread(found, 0, number, kth, last, kept, both, BLOCK, False)
                tl.debug_barrier()
    divisor = tl.minimum(tl.maximum(divisor, 1.1754943508222875e-38), 3.3230699894e35)
    least = tl.full([], BYE / 2, tl.float32)
    if not ALL:
        least = tl.maximum(score_of(kth) - reach * divisor, least)
    count = 0
    start = 0
    while start < n:
        i = start + tl.arange(0, BLOCK)
        score = score_of(_rising(scores, mask, i, n, HAS_MASK))
        playing = (i < n) & (score >= least)
        tl.store(keys + count + tl.cumsum(playing.to(tl.int32), 0) - 1, key_of(score, i), mask=playing)
        count += tl.sum(playing.to(tl.int32), 0)
        start += BLOCK
    tl.store(record, count)
    tl.store(record + 1, divisor.to(tl.int32, bitcast=True))


@triton.jit(do_not_specialize=["cap", "total"])
def field(
    scores, mask, temperature, records, keys, weights, slots, n, k, reach, cap, total, stride,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, FOUND: tl.constexpr, HELD: tl.constexpr, HAS_MASK: tl.constexpr,
    RELATIVE: tl.constexpr, ALL: tl.constexpr, ON_DEVICE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """Find a row's divisor and the keys of its players, in the order of tokens.

    The best scores of GROUPS groups of tokens are scores of the row. So the wanted-th best of them is a lower bound
    for the row's, and only scores that reach it are looked at closely. GROUPS = 0: that would not help. HELD: a row is
    one block, and all its scores are looked at closely. Further programs of the row each empty a block of all that has
    a place for each token.
    """
    row = tl.program_id(0).to(tl.int64)
    if tl.program_id(1) > 0:
        i = (tl.program_id(1) - 1) * BLOCK + tl.arange(0, BLOCK)
        _empty(row, records, weights, slots, n, i, total, stride, SMALL)
    else:
        scores += row * n
        if HAS_MASK:
            mask += row * n
        divisor = tl.load(temperature).to(tl.float32) if ON_DEVICE else temperature + 0.0
        _find(
            scores, mask, divisor, records + row * stride, keys + row * cap, n, k, reach,
            BLOCK, GROUPS, FOUND, HELD, HAS_MASK, RELATIVE, ALL, SMALL,
        )  # fmt: skip
