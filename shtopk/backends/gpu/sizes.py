"""How work is divided, and everything else that follows from sizes and dtypes alone.

It is worked out once, in functions that are cached. If operations are called one by one, Python's time is the time of
a step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from shtopk.backends.gpu.pairs import HEAD
from shtopk.backends.tournament import rounds_between

Kind = tuple[Any, ...]  # see `kind_of`
cached = lru_cache(maxsize=1024)


class Sizes(NamedTuple):
    """How work is divided; powers of two."""

    block: int = 8192  # tokens of a row that one program looks at at once
    found: int = 1024  # tokens of a row that are sorted to find the k-th best
    alone: int = 2048  # places that one program ranks; a level of more is sorted in chunks
    chunk: int = 1024  # keys that one program sorts of a larger level, twice as many where there are many chunks


SIZES = Sizes()


class Layout(NamedTuple):
    """The layout of what is kept for a row of n tokens and k slots, in 32-bit words."""

    levels: int  # above that of the slots
    places: int  # k * 2^levels
    total: int  # places of all levels, of the last one only n
    small: bool  # whether 16 bits tell where a candidate comes from
    stride: int  # of a record, see pairs.py
    room: int  # of 64 bits, for the players' keys and then for the leaves


@cached
def layout_of(n: int, k: int) -> Layout:
    levels = rounds_between(n, k)
    total, small = k * (2**levels - 1) + n, max(n, k) < 2**15
    words = HEAD.value + total + (-(-total // 2) if small else total) + -(-n // 4)
    return Layout(levels, k << levels, total, small, -(-words // 16) * 16, max(n, k << levels))


def kind_of(values: Tensor, *others: Tensor | None) -> Kind:
    """What the version of a kernel depends on.

    That is the device, and for each tensor its dtype and whether 16 divides its address, so that 16 bytes can be read
    at once.
    """
    tensors = (values, *others)
    return values.device.index, *[None if x is None else (x.dtype, x.data_ptr() % 16 == 0) for x in tensors]


def are_few(programs: int) -> bool:
    """Whether so many programs, of few warps each, would leave much of a GPU idle."""
    return programs < 1024


def read_tile(d: int, size: int, few: bool = False) -> dict[str, int]:
    """The tile of a program that sums vectors: how many vectors, how many numbers of each, and how many warps.

    It is the best of those tried on an H200. Many small programs wait for memory side by side.
    """
    width = between(16, power_of_two(d), 256)
    rows, warps = (32, 4) if few else (4, 1 if size == 2 else 2)
    return {"ROWS": between(rows, rows * 64 // width, 32), "D": width, "num_warps": warps}


def written_tile(d: int, size: int) -> tuple[int, int]:
    """The tile of a program of two warps that writes gradients: how many vectors, how many numbers of each."""
    width = between(16, power_of_two(d), 512 // size)  # at most what a warp reads at once
    return between(8, 1024 // width, 32), width


def power_of_two(x: int) -> int:
    """The smallest power of two >= x."""
    return 1 << max(0, x - 1).bit_length()


def between(least: int, x: int, most: int) -> int:
    return max(least, min(x, most))
