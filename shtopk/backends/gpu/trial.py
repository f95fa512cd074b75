"""A trial of the kernels: small inputs, beside tensor operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shtopk.backends.face import Answer, Gradients, Wanted
from shtopk.backends.gpu import given_slots, launch
from shtopk.backends.gpu.sizes import SIZES, Sizes
from shtopk.backends.tensors import Tensors
from shtopk.rule import Rule

BATCH, N, K, DEPTH = 3, 300, 5, 40
CUTS = (SIZES, Sizes(block=128, found=64, alone=32, chunk=32))  # in one go, and in blocks and chunks
ON_CPU: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever the caller's defaults are


def difference(device: torch.device) -> str:
    """What the kernels give that differs from tensor operations by more than rounding, in words; "" for nothing."""
    noise = torch.Generator("cpu").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=noise, **ON_CPU)

    share = torch.tensor([1.0, 0.5, 0.0], **ON_CPU).unsqueeze(-1)  # of real tokens in each row
    mask = torch.rand(BATCH, N, generator=noise, **ON_CPU) < share
    values, scores, mask = (x.to(device) for x in (normal(BATCH, N, DEPTH), normal(BATCH, N), mask))
    gradients = Gradients(*(x.to(device) for x in (normal(BATCH, K, DEPTH), normal(BATCH, K), normal(BATCH, N))))
    temperature, wanted, oracle = torch.tensor(0.25, **ON_CPU), Wanted(True, True, False), Tensors()
    for rule, sizes in zip((Rule(False, 0.0), Rule(True, 0.0)), CUTS, strict=True):  # all four would double the wait
        answer, saved = oracle.forward(values, scores, mask, temperature, K, rule)
        expected = _named(answer, oracle.backward(saved, gradients, rule, wanted))
        for _ in range(2):  # the first start of a kernel is not like those that follow
            found, played = launch.forward(values, scores, mask, temperature, K, rule, sizes)
            of_values_and_scores = launch.backward(values, played, gradients, rule, wanted)
        if text := _first_difference(_named(found, of_values_and_scores), expected):
            return text
    assert gradients.values is not None
    pooled, kept = oracle.pool(values, answer.weights, answer.slots, K)
    by_slot = oracle.pool_backward(kept, gradients.values, True, True)
    expected = {"vectors pooled by slot": pooled, "their gradients": by_slot[0], "gradients of weights": by_slot[1]}
    for sizes in CUTS:
        for _ in range(2):
            pooled = given_slots.pool(values, answer.weights, answer.slots, K, sizes)
            by_slot = given_slots.unpool(gradients.values, values, answer.weights, answer.slots, True, True)
        if text := _first_difference(dict(zip(expected, (pooled, *by_slot), strict=True)), expected):
            return text
    return ""


def _named(answer: Answer, gradients: tuple[Tensor | None, ...]) -> dict[str, Tensor | None]:
    return answer._asdict() | {"gradients of values": gradients[0], "gradients of scores": gradients[1]}


def _first_difference(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> str:
    for name, x in found.items():
        y = expected[name]
        assert x is not None and y is not None
        if not torch.allclose(x.float(), y.float(), rtol=1e-3, atol=1e-4):
            return f"{name} differ by up to {(x.float() - y.float()).abs().max():.2g}"
    return ""
