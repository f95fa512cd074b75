"""The gradients: down from the slots to their tokens, back up, and down again; see trees.py.

A program has some slots of a row. Other programs write the zeros of all tokens that carry no weight.

size: k * (2^(R + 1) - 1) nodes of a row's trees. total: k * (2^R - 1) + n places of all levels.
"""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import (
    BYE,
    carriers_of,
    head_of,
    level_start,
    margin,
    origins_of,
    rounds_of,
    share,
    steepness,
)


@triton.jit
def _carriers(weights, nodes, origins, leaf, there, rounds, count, k, negligible):
    """The weights of leaves, which of these carry any, and the tokens of those."""
    node = tl.load(nodes + leaf, mask=there, other=0)
    weight = tl.load(weights + leaf, mask=there, other=0.0)
    carries = there & (node < count) & (weight >= negligible)
    return weight, carries, tl.load(origins + level_start(rounds, k) + node, mask=carries, other=0).to(tl.int64)


@triton.jit
def _empty(
    records, grad_values, grad_scores, program, n, d, total, stride,
    TOKENS: tl.constexpr, D: tl.constexpr, OF_VALUES: tl.constexpr, OF_CHOICE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """Write zeros for those of TOKENS tokens that carry no weight."""
    blocks = tl.cdiv(n, TOKENS)
    row = (program // blocks).to(tl.int64)
    i = program % blocks * TOKENS + tl.arange(0, TOKENS)
    _, _, ranked = head_of(records, row, stride)
    bare = tl.load(carriers_of(ranked, total, SMALL) + i, mask=i < n, other=1) == 0
    if OF_CHOICE:
        tl.store(grad_scores + row * n + i, tl.zeros([TOKENS], grad_scores.dtype.element_ty), mask=bare)
    if OF_VALUES:
        begin = 0
        while begin < d:
            x = begin + tl.arange(0, D)
            to = grad_values + (row * n + i)[:, None] * d + x[None, :]
            zeros = tl.zeros([TOKENS, D], grad_values.dtype.element_ty)
            tl.store(to, zeros, mask=bare[:, None] & (x < d)[None, :])
            begin += D


@triton.jit(do_not_specialize=["total", "size", "programs"])
def unpool(
    grad_pooled, grad_slot_scores, grad_weights_in, values, records,
    scratch, grad_values, grad_scores, n, k, d, total, stride, size, programs, negligible, log_base,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr,
    POWER: tl.constexpr, HAS_VALUES: tl.constexpr, HAS_SCORES: tl.constexpr, HAS_WEIGHTS: tl.constexpr,
    OF_VALUES: tl.constexpr, OF_CHOICE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """The gradients of the tokens' vectors and scores, from those of the vectors, scores and weights of SLOTS slots.

    The programs behind these write the zeros of all other tokens. In front of `scratch` stands what each program adds
    to the gradient of the temperature's logarithm.
    """
    if tl.program_id(0) >= programs:
        _empty(
            records, grad_values, grad_scores, tl.program_id(0) - programs, n, d, total, stride,
            TOKENS, D, OF_VALUES, OF_CHOICE, SMALL,
        )  # fmt: skip
    else:
        _unpool_slots(
            grad_pooled, grad_slot_scores, grad_weights_in, values, records, scratch, grad_values, grad_scores,
            n, k, d, total, stride, size, programs, negligible, log_base, SLOTS, ROWS, WIDE, D, POWER, HAS_VALUES,
            HAS_SCORES, HAS_WEIGHTS, OF_VALUES, OF_CHOICE, SMALL,
        )  # fmt: skip


@triton.jit
def _unpool_slots(
    grad_pooled, grad_slot_scores, grad_weights_in, values, records, scratch, grad_values, grad_scores,
    n, k, d, total, stride, size, programs, negligible, log_base,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, POWER: tl.constexpr,
    HAS_VALUES: tl.constexpr, HAS_SCORES: tl.constexpr, HAS_WEIGHTS: tl.constexpr,
    OF_VALUES: tl.constexpr, OF_CHOICE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    """`unpool` for the program's slots. Their nodes of a level stand side by side, between those of other slots."""
    blocks = tl.cdiv(k, SLOTS)
    row, q = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * SLOTS
    own = tl.minimum(SLOTS, k - q)  # slots
    count, divisor, ranked = head_of(records, row, stride)
    origins = origins_of(ranked, total, SMALL)
    rounds = rounds_of(count, k)
    # The trees of the row: a number of each kind for each node, behind a number for each program.
    weights = scratch + programs + row * 6 * size
    winners, losers = weights + size, weights + 2 * size
    worths, advantages = weights + 3 * size, weights + 4 * size
    nodes = (weights + 5 * size).to(tl.pointer_type(tl.int32), bitcast=True)
    roots = q + tl.arange(0, SLOTS)
    top = tl.load(ranked + roots, mask=(roots < k) & ((rounds > 0) | (roots < count)), other=BYE)

    # Down: who met, and with what weight in the slot.
    tl.store(nodes + roots, roots, mask=roots < k)
    tl.store(weights + roots, (top > BYE).to(tl.float32), mask=roots < k)
    tl.debug_barrier()
    level = 0
    while level < rounds:
        m = k << level
        here = level_start(level, k) + (q << level)
        above = level_start(level + 1, k)
        valid = tl.where(level + 1 == rounds, count, 2 * m)
        start = 0
        while start < (own << level):
            a = start + tl.arange(0, WIDE)
            there = a < (own << level)
            node = tl.load(nodes + here + a, mask=there, other=0)
            weight = tl.load(weights + here + a, mask=there, other=0.0)
            j = tl.load(origins + level_start(level, k) + node, mask=there, other=0).to(tl.int32)
            winner = tl.load(ranked + above + j, mask=there & (j < valid), other=BYE)
            loser = tl.load(ranked + above + (2 * m - 1 - j), mask=there & (2 * m - 1 - j < valid), other=BYE)
            win = share(winner, loser, divisor, log_base, POWER)
            tl.store(winners + here + a, winner, mask=there)
            tl.store(losers + here + a, loser, mask=there)
            child = above + (q << (level + 1)) + 2 * a
            tl.store(nodes + child, j, mask=there)
            tl.store(nodes + child + 1, 2 * m - 1 - j, mask=there)
            tl.store(weights + child, weight * win, mask=there)
            tl.store(weights + child + 1, weight * (1 - win), mask=there)
            start += WIDE
        tl.debug_barrier()
        level += 1

    # At the leaves: the vectors.
    leaves = own << rounds
    here = level_start(rounds, k) + (q << rounds)
    start = 0
    while start < leaves:
        leaf = start + tl.arange(0, ROWS)
        there = leaf < leaves
        weight, carries, token = _carriers(weights, nodes, origins, here + leaf, there, rounds, count, k, negligible)
        token += row * n
        slot = row * k + q + (leaf >> rounds)
        dot = tl.zeros([ROWS], tl.float32)
        if HAS_VALUES:
            begin = 0
            while begin < d:
                x = begin + tl.arange(0, D)
                read = carries[:, None] & (x < d)[None, :]
                at = token[:, None] * d + x[None, :]
                gradient = tl.load(grad_pooled + slot[:, None] * d + x[None, :], mask=read, other=0.0).to(tl.float32)
                if OF_CHOICE:
                    dot += tl.sum(tl.load(values + at, mask=read, other=0.0).to(tl.float32) * gradient, 1)
                if OF_VALUES:
                    tl.store(
                        grad_values + at, (weight[:, None] * gradient).to(grad_values.dtype.element_ty), mask=read
                    )
                begin += D
        if OF_CHOICE:
            if HAS_WEIGHTS:
                dot += tl.load(grad_weights_in + token, mask=carries, other=0.0).to(tl.float32)
            tl.store(worths + here + leaf, tl.where(carries, dot, 0.0), mask=there)
        start += ROWS

    if OF_CHOICE:
        tl.debug_barrier()
        # Up: what a weight of 1 is worth in each node, and by how much more in its winner than in its loser.
        level = rounds - 1
        while level >= 0:
            here = level_start(level, k) + (q << level)
            child = level_start(level + 1, k) + (q << (level + 1))
            start = 0
            while start < (own << level):
                a = start + tl.arange(0, WIDE)
                there = a < (own << level)
                winner = tl.load(winners + here + a, mask=there, other=BYE)
                loser = tl.load(losers + here + a, mask=there, other=BYE)
                of_winner = tl.load(worths + child + 2 * a, mask=there, other=0.0)
                of_loser = tl.load(worths + child + 2 * a + 1, mask=there, other=0.0)
                advantage = of_winner - of_loser
                tl.store(advantages + here + a, advantage, mask=there)
                win = share(winner, loser, divisor, log_base, POWER)
                tl.store(worths + here + a, of_loser + advantage * win, mask=there)
                start += WIDE
            tl.debug_barrier()
            level -= 1

        # Down: a node hands on its gradient by its shares, and moves its margin by its weight and its gradient.
        arriving = tl.zeros([SLOTS], tl.float32)
        if HAS_SCORES:
            arriving = tl.load(grad_slot_scores + row * k + roots, mask=roots < k, other=0.0).to(tl.float32)
            arriving = tl.where(top > BYE, arriving, 0.0)
        tl.store(worths + roots, arriving, mask=roots < k)
        tl.debug_barrier()
        of_log = tl.zeros([WIDE], tl.float32)
        level = 0
        while level < rounds:
            here = level_start(level, k) + (q << level)
            child = level_start(level + 1, k) + (q << (level + 1))
            start = 0
            while start < (own << level):
                a = start + tl.arange(0, WIDE)
                there = a < (own << level)
                winner = tl.load(winners + here + a, mask=there, other=BYE)
                loser = tl.load(losers + here + a, mask=there, other=BYE)
                weight = tl.load(weights + here + a, mask=there, other=0.0)
                advantage = tl.load(advantages + here + a, mask=there, other=0.0)
                gradient = tl.load(worths + here + a, mask=there, other=0.0)
                win = share(winner, loser, divisor, log_base, POWER)
                slope = win * (1 - win) / divisor  # 0 beside a bye, and first: 0 * huge, not huge * huge
                of_margin = slope * weight * advantage + slope * (winner - loser) * gradient
                of_log -= tl.where(there, of_margin * margin(winner, loser, log_base, POWER), 0.0)
                to_winner, to_loser = of_margin, -of_margin
                if POWER:
                    to_winner = to_winner * steepness(winner, log_base)
                    to_loser = to_loser * steepness(loser, log_base)
                tl.store(worths + child + 2 * a, win * gradient + to_winner, mask=there)
                tl.store(worths + child + 2 * a + 1, (1 - win) * gradient + to_loser, mask=there)
                start += WIDE
            tl.debug_barrier()
            level += 1
        tl.store(scratch + tl.program_id(0), tl.sum(of_log, 0))
        here = level_start(rounds, k) + (q << rounds)
        start = 0
        while start < leaves:
            leaf = start + tl.arange(0, WIDE)
            there = leaf < leaves
            _, carries, token = _carriers(weights, nodes, origins, here + leaf, there, rounds, count, k, negligible)
            gradient = tl.load(worths + here + leaf, mask=carries, other=0.0)
            tl.store(grad_scores + row * n + token, gradient.to(grad_scores.dtype.element_ty), mask=carries)
            start += WIDE
