"""Successive halving on a GPU: a handful of Triton kernels that do not wait for the host.

The one exception is the gradient of a temperature that is learnt on the CPU. Triton comes with torch's CUDA wheels,
and is imported when the first CUDA tensor arrives. For tensors that the kernels do not take, tensor operations do the
work.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from shtopk.backends import clusters
from shtopk.backends.face import Answer, Gradients, Saved, Wanted
from shtopk.rule import Rule

Step = TypeVar("Step", bound=Callable[..., Any])
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def on_its_device(step: Step) -> Step:
    """Run a step of a backend on the device of its first tensor: Triton starts kernels on the current device."""

    @wraps(step)
    def run(self: Gpu, first: Tensor | Saved, *rest: Any) -> Any:
        device = (first if isinstance(first, Tensor) else first[0]).device
        if device.index == torch.cuda.current_device():
            return step(self, first, *rest)
        with torch.cuda.device(device):
            return step(self, first, *rest)

    return cast(Step, run)


class Gpu:
    """Kernels for CUDA tensors.

    On the first use of a device they are tried: do they give what tensor operations give?
    """

    def serves(self, values: Tensor, scores: Tensor) -> bool:
        return (
            type(scores) in (Tensor, nn.Parameter)  # no placeholder that a compiler traces with
            and scores.device.type == "cuda"
            and values.dtype in FLOATS
            and scores.dtype in FLOATS
            and usable(scores.device)
        )

    @on_its_device
    def forward(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> tuple[Answer, Saved]:
        from shtopk.backends.gpu import launch

        answer, played = launch.forward(values, scores, mask, temperature, k, rule)
        return answer, (values, temperature, *played)

    def save(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> Saved:
        _, (_, *played) = self.forward(values[..., :0], scores, mask, temperature, k, rule)
        return values, *played

    @on_its_device
    def backward(
        self, saved: Saved, gradients: Gradients, rule: Rule, wanted: Wanted
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        from shtopk.backends.gpu import launch

        values, temperature, *played = saved
        of_values, of_scores, of_log = launch.backward(values, launch.Played(*played), gradients, rule, wanted)
        of_temperature = None if of_log is None else of_log.to(temperature.device) / temperature
        return of_values, of_scores, of_temperature

    def merge(self, values: Tensor, scores: Tensor, logits: Tensor, k: int) -> tuple[Answer, Saved]:
        return clusters.merge(self, values, scores, logits, k)

    @on_its_device
    def pool(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Saved]:
        from shtopk.backends.gpu import given_slots

        return given_slots.pool(values, weights, slots, k), (values, weights, slots)

    def pool_save(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Saved:
        return values, weights, slots

    @on_its_device
    def pool_backward(
        self, saved: Saved, gradient: Tensor, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        from shtopk.backends.gpu import given_slots

        values, weights, slots = saved
        return given_slots.unpool(gradient, values, weights, slots, of_values, of_weights)


@cache
def usable(device: torch.device) -> bool:
    """Whether the kernels are right on a device, by values and gradients of small inputs against tensor operations."""
    if importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("shtopk tries its kernels on first use: run a step before one is captured in a CUDA graph")
    from shtopk.backends.gpu.trial import difference

    waits = torch.cuda.get_sync_debug_mode()
    if waits:  # to set it is to be warned by torch
        torch.cuda.set_sync_debug_mode("default")  # to compare is to wait
    try:
        found = difference(device)
    except torch.OutOfMemoryError:  # which says nothing of the kernels: the next call tries again
        raise
    except Exception as error:  # whatever a compiler or a driver says: there is another way
        found = f"{type(error).__name__}: {error}"
    finally:
        if waits:
            torch.cuda.set_sync_debug_mode(waits)
    if found:
        warnings.warn(
            f"shtopk's kernels cannot be used on {device} ({found}): tensor operations do their work in this process",
            stacklevel=2,
        )
    return not found
