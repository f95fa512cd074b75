"""The peak memory of a piece of work."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


class PeakMemory:
    """Peak memory in MiB since the object was made, less what was in use before (on a CPU: Linux alone)."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        self.before = self._read()

    def read(self) -> float:
        return self._read() - self.before

    def _read(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def in_its_own_process(work: Callable, *arguments: Any) -> Any:
    """work(*arguments), run in a new process, whose peak does not depend on what was freed in this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()
