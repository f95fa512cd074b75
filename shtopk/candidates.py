"""Check the input of an operator, and flatten its leading dimensions to one."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """The input of an operator, checked, with one batch dimension."""

    values: Tensor  # [B, n, d]
    scores: Tensor  # [B, n]
    k: int
    mask: Tensor | None  # [B, n] bool; None: all are real
    temperature: Tensor  # scalar in the scores' dtype, float32 at least; on the CPU it goes with scores on any device
    batch: torch.Size  # the leading dimensions, B together


def candidates(values: Tensor, scores: Tensor, k: int, mask: Tensor | None, temperature: float | Tensor) -> Candidates:
    """Check the input of an operator, and flatten its leading dimensions. `successive_halving_topk` explains the
    arguments.

    Raises:
        ValueError: shapes that do not fit, no tokens, whole numbers, k < 1, temperature <= 0, or several devices.
    """
    if scores.dim() < 1 or values.dim() != scores.dim() + 1 or values.shape[:-1] != scores.shape:
        raise ValueError(
            f"expected values [*, n, d] and scores [*, n] with equal leading dimensions, "
            f"got {list(values.shape)} and {list(scores.shape)}"
        )
    if scores.shape[-1] == 0:
        raise ValueError("expected at least one token (n >= 1), got n = 0")
    if not scores.is_floating_point() or not values.is_floating_point():
        raise ValueError(f"expected floating-point values and scores, got {values.dtype} and {scores.dtype}")
    k = whole(k)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"expected k to be a whole number >= 1, got {k!r}")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"expected a temperature > 0, got {temperature!r}")
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise ValueError(f"expected a temperature that is one number, got a tensor {list(temperature.shape)}")
    if isinstance(temperature, Tensor) and temperature.is_meta and not scores.is_meta:
        raise ValueError("expected a temperature that is one number, got a tensor on the device meta, which has none")
    if mask is not None and mask.shape != scores.shape:
        raise ValueError(f"expected a mask of the scores' shape {list(scores.shape)}, got {list(mask.shape)}")
    devices = [x.device for x in (values, scores, mask) if x is not None]
    if len(set(devices)) > 1:
        raise ValueError(f"expected values, scores and mask on one device, got {', '.join(map(str, devices))}")
    n, batch = scores.shape[-1], scores.shape[:-1]
    if mask is not None:
        mask = mask.bool()
    if len(batch) != 1:  # a reshape that changes nothing is a step of autograd all the same
        values, scores = values.reshape(-1, n, values.shape[-1]), scores.reshape(-1, n)
        mask = None if mask is None else mask.reshape(-1, n)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    # A number that a kernel is given by the host would be the same at each replay of a compiled step's CUDA graph.
    device = scores.device if torch.compiler.is_compiling() else None
    if isinstance(temperature, Tensor):
        device = device if temperature.device.type == "cpu" else scores.device
        temperature = temperature.reshape(()).to(device, dtype, non_blocking=scores.is_cuda)  # else it is read at once
        if temperature.requires_grad:  # what is divided by its square, as a gradient is, stays finite
            temperature = temperature.clamp(min=torch.finfo(dtype).tiny ** 0.5)
    else:
        temperature = torch.tensor(temperature, dtype=dtype, device=device or "cpu")
    return Candidates(values, scores, k, mask, temperature, batch)


def whole(k: Any) -> Any:
    """A whole number of another kind, such as NumPy's, as Python's; anything else as it is."""
    return int(k) if not isinstance(k, int) and isinstance(k, Integral) else k


def bound(dtype: torch.dtype) -> float:
    """What the score of a real token is at most, and at least its negative."""
    return torch.finfo(dtype).max / 8


def bounded(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The scores in float32 at least: finite for real tokens, -inf for all others."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # A real token may score as low as it likes, it is still wanted more than a masked one.
    scores = scores.clamp(-bound(scores.dtype), bound(scores.dtype))
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def logits_of(scores: Tensor, temperature: Tensor) -> Tensor:
    """Scores [B, n] as `bounded` returns them, by the temperature: again finite for real tokens, -inf for all others.

    A temperature too low for that counts as the lowest one that is not, so the order stays. A score at the bound, or
    NaN, stays so, and changes the temperature of no other.
    """
    largest = 2 * bound(scores.dtype)  # of the logits, which what is at the bound gets whatever the temperature
    ordinary = scores.detach().abs() < bound(scores.dtype)
    finite = scores.masked_fill(~ordinary, 0)  # as -inf / T has no gradient
    lowest = (finite.detach().abs().amax(-1, keepdim=True) / largest).clamp(min=torch.finfo(scores.dtype).tiny)
    return torch.where(ordinary, finite / temperature.maximum(lowest), 2 * scores.detach())
