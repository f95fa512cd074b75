"""Measures of an update beside its loss: speed, memory and softness of the choice; and a trace of a few updates."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate.utils import ProfileKwargs
from torch import nn

from shtopk.pooling import poolings

SKIPPED = 2  # updates before a trace: one runs cold, with one the profiler warms up


class Meter:
    """Measures the updates of a model with poolings inside, by hooks on these."""

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
        """The measures since `begin` or the last `end`.

        Two are of this process alone: peak_memory_gib, since the process began, and selection_entropy, over its
        documents (nats; 0 where every slot holds a single token).

        Args:
            documents: read in this time by all processes.
            tokens: likewise.
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
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU; 0 if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def profiler(updates: int, path: Path) -> AbstractContextManager:
    """A context in which each `.step()` ends an update. After so many updates a trace is written (0: none).

    chrome://tracing and ui.perfetto.dev read it.
    """
    if not updates:
        return nullcontext()
    return ProfileKwargs(
        schedule_option={"skip_first": SKIPPED - 1, "wait": 0, "warmup": 1, "active": updates, "repeat": 1},
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
        profile_memory=True,
    ).build()
