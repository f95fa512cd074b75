"""Measures of an update besides its loss: speed, memory, entropy of the selection."""

import sys
import time

import torch
from torch import nn

from shtopk.pooling import poolings


class Meter:
    """Measures one update after the other.

    Args:
        model: with `TopKPooling` inside, on which hooks are put.
        device: of the model.
    """

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
        """The measures of the update since `begin`, or since the last `end`.

        Args:
            documents, tokens: read by all processes together.

        Returns:
            seconds, documents_per_second, tokens_per_second, peak_memory_gib (of this process, since it began), and
            selection_entropy (of this process's documents; nats, 0 where every slot holds a single token).
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
