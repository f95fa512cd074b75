"""Huge pages for large results on a CPU.

malloc takes fresh pages from the system for whatever is larger than 32 MiB, and the first write to each 4 KiB of them
is a fault. For the gradient of many long documents these took longer than all the rest of a step. Linux has pages of
2 MiB for whoever asks.
"""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

PAGE = 2**21  # bytes of a huge page
LARGE = 2**25  # bytes from which on it pays
ADVICE = 14  # MADV_HUGEPAGE in sys/mman.h

_advise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None


def in_huge_pages(tensor: Tensor) -> Tensor:
    """The tensor, not written to yet, after telling Linux that its memory may be huge pages.

    Costs nothing where they are already there, the tensor is small, lies on a GPU, or the system has none.
    """
    size = tensor.numel() * tensor.element_size()
    if size >= LARGE and _advise is not None and type(tensor) is Tensor and tensor.device.type == "cpu":
        begin, end = tensor.data_ptr(), tensor.data_ptr() + size
        begin += -begin % PAGE
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ADVICE)
    return tensor
