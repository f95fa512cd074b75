"""Memory of large tensors on a CPU, used again.

malloc takes fresh pages from the system for everything larger than 32 MiB, and the first write to each 4 KiB of them
is a page fault. For the gradient of many long documents, these faults took longer than the rest of a step. So the
memory of the last such tensor that was freed is kept for the next one.

Huge pages from the system were as fast in the median, but had a long tail where memory is fragmented. How even steps
are now: `python benchmarks/speed.py`, in benchmarks/results/speed.md.
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
    """A tensor of this shape and type with arbitrary numbers, like torch.empty_like.

    A large one on a CPU gets memory that an earlier one left, if that is large enough and at most twice as large. When
    torch would free it, its memory is kept, in place of what was kept before. So a process never has more than one
    piece that nobody uses.
    """
    size = tensor.numel() * tensor.element_size()
    if size < LARGE or type(tensor) not in (Tensor, nn.Parameter) or tensor.device.type != "cpu" or os.name != "posix":
        return torch.empty_like(tensor)
    memory = _take(size)
    lent = memoryview(memory)  # which lives as long as the tensor's storage
    weakref.finalize(lent, _left.append, memory).atexit = False
    return torch.frombuffer(lent, dtype=tensor.dtype, count=tensor.numel()).view(tensor.shape)


def _take(size: int) -> mmap.mmap:
    """Memory of at least so many bytes, and at most twice as many if it was kept."""
    try:
        memory = _left.pop()
    except IndexError:
        memory = None
    if memory is None or not size <= len(memory) <= 2 * size:
        memory = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # not shared with a forked process
    return memory


def release() -> None:
    """Return the memory that is kept to the system."""
    _left.clear()
