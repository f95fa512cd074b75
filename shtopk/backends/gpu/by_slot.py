"""Pooling by slots that are given: list the tokens that carry weight by slot, sum them, hand gradients back."""

import triton
import triton.language as tl

from shtopk.backends.gpu.pairs import NO_KEY
from shtopk.backends.gpu.sorting import falling


@triton.jit
def carriers(weights, slots, keys, records, n, stride, N: tl.constexpr):
    """List the keys (slot, token) of the tokens that carry weight, in the order of tokens. One program for each row.

    They are keys of a ranking: slot 0 is the highest score, and of equals the lower token comes first. A row's record
    has only its head here, with the number of keys.
    """
    row = tl.program_id(0).to(tl.int64)
    keys += row * n
    before = tl.full([], 0, tl.int32)
    start = 0
    while start < n:
        i = start + tl.arange(0, N)
        weight = tl.load(weights + row * n + i, mask=i < n, other=0.0)
        slot = tl.load(slots + row * n + i, mask=i < n, other=-1).to(tl.int64)
        carries = (weight != 0) & (slot >= 0)
        key = ((-1 - slot) << 32) | (0x7FFFFFFF - i).to(tl.int64)
        tl.store(keys + before + tl.cumsum(carries.to(tl.int32), 0) - 1, key, mask=carries)
        before += tl.sum(carries.to(tl.int32), 0)
        start += N
    tl.store(records + row * stride, before)


@triton.jit
def sort_few(keys, records, n, stride, S: tl.constexpr):
    """Sort the keys of a row in place, if it has at most S of them. One program for each row."""
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(records + row * stride)
    if count <= S:
        keys += row * n
        j = tl.arange(0, S)
        tl.store(keys + j, falling(tl.load(keys + j, mask=j < count, other=NO_KEY), S), mask=j < count)


@triton.jit
def pool_listed(
    values, weights, keys, records, pooled, n, k, d, stride, ROWS: tl.constexpr, D: tl.constexpr, STEPS: tl.constexpr
):
    """The weighted sum of a slot's tokens. One program for each slot finds its keys by halving."""
    slot = tl.program_id(0).to(tl.int64)
    row, q = slot // k, slot % k
    keys += row * n
    count = tl.load(records + row * stride)
    # The first key whose slot is at least q, and at least q + 1: [0] and [1].
    wanted = q + tl.arange(0, 2)
    low = tl.zeros([2], tl.int32)
    high = low + count
    for _ in tl.static_range(STEPS):
        middle = (low + high) >> 1
        open_ = low < high
        before = -1 - (tl.load(keys + middle, mask=open_, other=NO_KEY) >> 32) < wanted
        low = tl.where(open_ & before, middle + 1, low)
        high = tl.where(open_ & (before == 0), middle, high)
    first = tl.min(low, 0)
    end = tl.max(low, 0)
    begin = 0
    while begin < d:
        x = begin + tl.arange(0, D)
        pooling = tl.zeros([ROWS, D], tl.float32)
        start = first
        while start < end:
            at = start + tl.arange(0, ROWS)
            key = tl.load(keys + at, mask=at < end, other=0)
            token = row * n + (0x7FFFFFFF - (key & 0x7FFFFFFF))
            weight = tl.load(weights + token, mask=at < end, other=0.0).to(tl.float32)
            read = (at < end)[:, None] & (x < d)[None, :]
            vector = tl.load(values + token[:, None] * d + x[None, :], mask=read, other=0.0)
            pooling += vector.to(tl.float32) * weight[:, None]
            start += ROWS
        tl.store(pooled + slot * d + x, tl.sum(pooling, 0).to(pooled.dtype.element_ty), mask=x < d)
        begin += D


@triton.jit(do_not_specialize=["tokens"])
def unpool_by_token(
    gradient, values, weights, slots, grad_values, grad_weights, tokens, n, k, d,
    ROWS: tl.constexpr, D: tl.constexpr, OF_VALUES: tl.constexpr, OF_WEIGHTS: tl.constexpr,
):  # fmt: skip
    """The gradients of each token's vector and weight. All are written, 0 for a token that carries no weight."""
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = token < tokens
    slot = tl.load(slots + token, mask=inside, other=-1)
    weight = tl.load(weights + token, mask=inside, other=0.0).to(tl.float32)
    carries = (slot >= 0) & (slot < k) & (weight != 0)
    dot = tl.zeros([ROWS], tl.float32)
    begin = 0
    while begin < d:
        x = begin + tl.arange(0, D)
        at = token[:, None] * d + x[None, :]
        read = carries[:, None] & (x < d)[None, :]
        of_slot = tl.load(gradient + (token // n * k + slot)[:, None] * d + x[None, :], mask=read, other=0.0)
        of_slot = of_slot.to(tl.float32)
        if OF_WEIGHTS:
            dot += tl.sum(tl.load(values + at, mask=read, other=0.0).to(tl.float32) * of_slot, 1)
        if OF_VALUES:
            tl.store(grad_values + at, (of_slot * weight[:, None]).to(grad_values.dtype.element_ty),
                     mask=inside[:, None] & (x < d)[None, :])  # fmt: skip
        begin += D
    if OF_WEIGHTS:
        tl.store(grad_weights + token, dot.to(grad_weights.dtype.element_ty), mask=inside)
