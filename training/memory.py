"""The peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import torch


class PeakMemory:
    """The peak memory in MiB since the object was made, less what was in use before. On a CPU: Linux only."""

    def __init__(self, device: torch.device):
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be used again, unseen
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        self.before = self._read()

    def read(self) -> float:
        return self._read() - self.before

    def _read(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def peak_memory_of(device: torch.device) -> PeakMemory | None:
    """A `PeakMemory` if it can be measured, else None."""
    if device.type != "cuda" and not sys.platform.startswith("linux"):
        return None
    return PeakMemory(device)


def amount(size: float) -> str:
    """A number of bytes as people read it.

    Example:
        >>> amount(3 * 2**30), amount(1500)
        ('3.0 GiB', '1.5 KiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
