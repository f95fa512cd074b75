"""Successive halving on a GPU: a handful of Triton kernels that never wait for the host (but for the gradient of a
temperature that is learnt on the CPU).

Triton comes with torch's CUDA wheels, and is imported when the first CUDA tensor arrives. Elsewhere, and for what the
kernels do not take, tensor operations do the work.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache

import torch
from torch import Tensor, nn

from shtopk.backends.face import Answer, Gradients, Saved, Wanted
from shtopk.rule import Rule

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Gpu:
    """Kernels for CUDA tensors, where they give what tensor operations give: tried on the first use of a device."""

    def serves(self, values: Tensor, scores: Tensor) -> bool:
        return (
            type(scores) in (Tensor, nn.Parameter)  # no placeholder that a compiler traces with
            and scores.device.type == "cuda"
            and values.dtype in FLOATS
            and scores.dtype in FLOATS
            and usable(scores.device)
        )

    def forward(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> tuple[Answer, Saved]:
        from shtopk.backends.gpu import launch

        answer, played = launch.forward(values, scores, mask, temperature, k, rule)
        return answer, (values, temperature, scores.new_empty(0, k), *played)  # the empty one tells k

    def save(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> Saved:
        from shtopk.backends.gpu import launch

        weights = scores.new_empty(scores.shape, dtype=torch.float32)
        played = launch.play(scores, mask, temperature, k, rule, weights, torch.empty_like(weights, dtype=torch.int64))
        return values, temperature, weights.new_empty(0, k), *played

    def backward(
        self, saved: Saved, gradients: Gradients, rule: Rule, wanted: Wanted
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        from shtopk.backends.gpu import launch

        values, temperature, slots, *played = saved
        of_values, of_scores, of_log = launch.backward(
            values, slots.shape[-1], launch.Played(*played), gradients, rule, wanted
        )
        of_temperature = None if of_log is None else of_log.to(temperature.device) / temperature
        return of_values, of_scores, of_temperature

    def pool(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Saved]:
        from shtopk.backends.gpu import launch

        return launch.pool_by_slot(values, weights, slots, k), (values, weights, slots)

    def pool_save(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Saved:
        return values, weights, slots

    def pool_backward(
        self, saved: Saved, gradient: Tensor, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        from shtopk.backends.gpu import launch

        values, weights, slots = saved
        return launch.pool_by_slot_backward(gradient, values, weights, slots, of_values, of_weights)


@cache
def usable(device: torch.device) -> bool:
    """Whether the kernels are right on a device: values and gradients of small inputs, against tensor operations."""
    if importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("shtopk tries its kernels on first use: run a step before one is captured in a CUDA graph")
    from shtopk.backends.gpu.trial import difference

    waits = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("default")  # to compare is to wait
    try:
        found = difference(device)
    except torch.OutOfMemoryError:  # which says nothing of the kernels: the next call tries again
        raise
    except Exception as error:  # whatever a compiler or a driver says: there is another way
        found = f"{type(error).__name__}: {error}"
    finally:
        torch.cuda.set_sync_debug_mode(waits)
    if found:
        warnings.warn(
            f"shtopk's kernels cannot be used on {device} ({found}): tensor operations do their work in this process",
            stacklevel=2,
        )
    return not found
