"""Memory of large results on a CPU, used again.

malloc takes fresh pages from the system for whatever is larger than 32 MiB, and the first write to each 4 KiB of them
is a fault. For the gradient of many long documents these took longer than all the rest of a step. So the last one that
was let go leaves its memory to the next.

Huge pages from the system were as fast in the median, with a long tail where memory is fragmented; how even steps are
now: `python benchmarks/speed.py`, in benchmarks/results/speed.md.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque

import torch
from torch import Tensor, nn

LARGE = 2**25  # bytes from which on it pays

_left: deque[mmap.mmap] = deque(maxlen=1)  # in use by no tensor


def empty_like(tensor: Tensor) -> Tensor:
    """A tensor of this shape and type whose numbers may be anything, as torch.empty_like makes it.

    A large one on a CPU gets the memory that another left, if that has its size or up to twice as much. Where torch
    would free it, its memory is kept, instead of what was kept before: a process has one that nobody uses, not more.
    """
    size = tensor.numel() * tensor.element_size()
    if size < LARGE or type(tensor) not in (Tensor, nn.Parameter) or tensor.device.type != "cpu" or os.name != "posix":
        return torch.empty_like(tensor)
    memory = _take(size)
    lent = memoryview(memory)  # which lives as long as the tensor's storage
    weakref.finalize(lent, _left.append, memory).atexit = False
    return torch.frombuffer(lent, dtype=tensor.dtype, count=tensor.numel()).view(tensor.shape)


def _take(size: int) -> mmap.mmap:
    """Memory of so many bytes or up to twice as many."""
    try:
        memory = _left.pop()
    except IndexError:
        memory = None
    if memory is None or not size <= len(memory) <= 2 * size:
        memory = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # not shared with a forked process
    return memory


def release() -> None:
    """Give the system what is kept."""
    _left.clear()
