"""How much memory a stretch of work takes."""

from pathlib import Path

import torch


class PeakMemory:
    """MiB that a stretch of work took at its peak, beyond what was there before (the CPU's figure needs Linux)."""

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
