"""The way down from a slot to its tokens. One program for each slot.

The candidate in place p of a level came from a pair j, so from the candidates j and 2 m - 1 - j of the level above. A
slot is the root of a binary tree with 2^R leaves. The nodes of a level are stored by their paths, the winner's before
the loser's.

places: room for the leaves of all slots, at least k * 2^R. total: k * (2^R - 1) + n places of all levels.
"""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import (
    BYE,
    carriers_of,
    head_of,
    level_start,
    origins_of,
    rounds_of,
    share,
)


@triton.jit(do_not_specialize=["total", "places"])
def pool(
    values, records, room, pooled, slot_scores, filled, positions, weights, slots,
    n, k, d, total, stride, places, negligible, log_base,
    LEAVES: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, POWER: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """The weights of a slot's tokens, and the sum of their vectors. Only tokens that carry weight are read.

    room: 8 bytes for each of a row's places.
    """
    slot = tl.program_id(0).to(tl.int64)
    row, q = slot // k, (slot % k).to(tl.int32)
    count, divisor, ranked = head_of(records, row, stride)
    origins, carriers = origins_of(ranked, total, SMALL), carriers_of(ranked, total, SMALL)
    rounds = rounds_of(count, k)
    leaves = 1 << rounds
    leaf_weights = room.to(tl.pointer_type(tl.float32), bitcast=True) + row * 2 * places + q * leaves
    leaf_tokens = (leaf_weights + places).to(tl.pointer_type(tl.int32), bitcast=True)
    result = tl.load(ranked + q, mask=(rounds > 0) | (q < count), other=BYE)
    full = result > BYE
    heaviest = -1.0
    leader = 0
    start = 0
    while start < leaves:
        leaf = start + tl.arange(0, LEAVES)
        there = leaf < leaves
        node = tl.zeros([LEAVES], tl.int32) + q
        weight = tl.zeros([LEAVES], tl.float32) + full.to(tl.float32)
        level = 0
        while level < rounds:
            m = k << level
            j = tl.load(origins + level_start(level, k) + node, mask=there, other=0).to(tl.int32)
            above = ranked + level_start(level + 1, k)
            valid = tl.where(level + 1 == rounds, count, 2 * m)
            winner = tl.load(above + j, mask=there & (j < valid), other=BYE)
            loser = tl.load(above + (2 * m - 1 - j), mask=there & (2 * m - 1 - j < valid), other=BYE)
            win = share(winner, loser, divisor, log_base, POWER)
            lost = ((leaf >> (rounds - 1 - level)) & 1) != 0
            node = tl.where(lost, 2 * m - 1 - j, j)
            weight *= tl.where(lost, 1 - win, win)
            level += 1
        real = there & (node < count)
        token = tl.load(origins + level_start(rounds, k) + node, mask=real, other=0).to(tl.int32)
        weight = tl.where(real, weight, -1.0)
        most = tl.max(weight, 0)
        first = tl.min(tl.where(real & (weight == most), token, 0x7FFFFFFF), 0)
        leader = tl.where(most > heaviest, first, tl.where(most == heaviest, tl.minimum(leader, first), leader))
        heaviest = tl.maximum(heaviest, most)
        carries = real & (weight >= negligible)
        tl.store(weights + row * n + token, weight, mask=carries)
        tl.store(slots + row * n + token, (tl.zeros([LEAVES], tl.int32) + q).to(tl.int64), mask=carries)
        tl.store(carriers + token, tl.full([LEAVES], 1, tl.int8), mask=carries)
        tl.store(leaf_tokens + leaf, token, mask=there)
        tl.store(leaf_weights + leaf, tl.where(carries, weight, 0.0), mask=there)
        start += LEAVES
    tl.store(slot_scores + slot, tl.where(full, result, 0.0).to(slot_scores.dtype.element_ty))
    tl.store(filled + slot, full.to(tl.int8))
    tl.store(positions + slot, tl.where(full, leader, 0).to(tl.int64))
    tl.debug_barrier()

    begin = 0
    while begin < d:
        x = begin + tl.arange(0, D)
        pooling = tl.zeros([ROWS, D], tl.float32)
        start = 0
        while start < leaves:
            leaf = start + tl.arange(0, ROWS)
            weight = tl.load(leaf_weights + leaf, mask=leaf < leaves, other=0.0)
            token = tl.load(leaf_tokens + leaf, mask=leaf < leaves, other=0).to(tl.int64)
            read = (weight > 0)[:, None] & (x < d)[None, :]
            vector = tl.load(values + (row * n + token)[:, None] * d + x[None, :], mask=read, other=0.0)
            pooling += vector.to(tl.float32) * weight[:, None]
            start += ROWS
        tl.store(pooled + slot * d + x, tl.sum(pooling, 0).to(pooled.dtype.element_ty), mask=x < d)
        begin += D
