"""How a program sorts. tl.sort unrolls its network, which takes the compiler minutes where there is much to sort."""

import triton
import triton.language as tl


@triton.jit
def falling(key, S: tl.constexpr):
    """Sort keys [S], the largest first, by a bitonic network in loops.

    Keys up to 32 places apart meet in a warp.
    """
    W: tl.constexpr = 32 if S > 32 else S
    H: tl.constexpr = S // W
    line = tl.broadcast_to(tl.arange(0, H)[:, None], [H, W])
    lane = tl.broadcast_to(tl.arange(0, W)[None, :], [H, W])
    place = line * W + lane
    key = tl.reshape(key, [H, W])
    size = 2
    while size <= S:
        stride = size >> 1
        while stride >= W:
            other = tl.gather(key, line ^ (stride // W), 0)
            larger = ((place & stride) == 0) == ((place & size) == 0)
            key = tl.where(larger == (key > other), key, other)
            stride >>= 1
        while stride > 0:
            other = tl.gather(key, lane ^ stride, 1)
            larger = ((place & stride) == 0) == ((place & size) == 0)
            key = tl.where(larger == (key > other), key, other)
            stride >>= 1
        size <<= 1
    return tl.reshape(key, [S])


@triton.jit
def at(x, index, S: tl.constexpr):
    """x[index] of x [S]."""
    return tl.sum(tl.where(tl.arange(0, S) == index, x, 0), 0)
