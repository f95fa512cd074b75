"""Measures of an update besides its loss: speed, memory, entropy of the selection; and a trace of a few updates."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from shtopk.pooling import poolings

SKIPPED = 2  # updates before a trace: one runs cold, with one the profiler warms up


class Meter:
    """Measures one update after the other of a model with `TopKPooling` inside, on which hooks are put."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.device = device
        self._entropies: list[torch.Tensor] = []
        for pooling in poolings(model):
            pooling.register_forward_hook(self._listen)
        self.begin()

    def begin(self) -> None:
        """Start the clock of the next update."""
        self._entropies.clear()
        self._since = time.perf_counter()

    def end(self, documents: int, tokens: int) -> dict[str, float]:
        """The measures since `begin`, or since the last `end`; documents and tokens are those of all processes.

        Of this process alone: peak_memory_gib, since it began, and selection_entropy, of its documents (nats; 0 where
        every slot holds a single token).
        """
        entropy = torch.stack(self._entropies).mean().item() if self._entropies else 0.0  # waits for the device
        seconds = time.perf_counter() - self._since
        self.begin()
        return {
            "seconds": seconds,
            "documents_per_second": documents / seconds,
            "tokens_per_second": tokens / seconds,
            "peak_memory_gib": peak_memory(self.device) / 2**30,
            "selection_entropy": entropy,
        }

    def _listen(self, pooling: nn.Module, inputs: tuple, pooled) -> None:
        if pooling.training:
            with torch.no_grad():
                self._entropies.append(pooled.assignment.entropy().mean())


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process on a CPU; 0 where the system has no such figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def profiler(updates: int, path: Path) -> AbstractContextManager:
    """A context in which each `.step()` ends an update; after so many (0: none) a trace is written.

    It is read by chrome://tracing and ui.perfetto.dev.
    """
    if not updates:
        return nullcontext()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    return torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=updates, repeat=1),
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
        profile_memory=True,
    )
