"""The kernels on a small input, beside tensor operations."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk.backends.face import Backend, Gradients, Wanted
from shtopk.backends.tensors import Tensors
from shtopk.rule import Rule

BATCH, N, K, DEPTH = 3, 300, 5, 40


def difference(backend: Backend, device: torch.device) -> str:
    """What a backend gives that differs from tensor operations by more than rounding, in words; "" for nothing."""
    noise = torch.Generator().manual_seed(0)
    values, scores = torch.randn(BATCH, N, DEPTH, generator=noise), torch.randn(BATCH, N, generator=noise)
    mask = torch.rand(BATCH, N, generator=noise) < torch.tensor([1.0, 0.5, 0.0]).unsqueeze(-1)
    weights = (torch.randn(BATCH, K, DEPTH, generator=noise), torch.randn(BATCH, K, generator=noise),
               torch.randn(BATCH, N, generator=noise))  # fmt: skip
    gradients = Gradients(*(x.to(device) for x in weights))
    given = [x.to(device) for x in (values, scores, mask)]
    for relative in (False, True):
        found, expected = (_all(one, given, gradients, Rule(relative, 0.0)) for one in (backend, Tensors()))
        for name, x in found.items():
            if not torch.allclose(x.float(), expected[name].float(), rtol=1e-3, atol=1e-4):
                return f"{name} differ by up to {(x.float() - expected[name].float()).abs().max():.2g}"
    return ""


def _all(backend: Backend, given: list[Tensor], gradients: Gradients, rule: Rule) -> dict[str, Tensor]:
    values, scores, mask = given
    answer, saved = backend.forward(values, scores, mask, torch.tensor(0.25), K, rule)
    of_values, of_scores, _ = backend.backward(saved, gradients, rule, Wanted(True, True, False))
    pooled, kept = backend.pool(values, answer.weights, answer.slots, K)
    assert gradients.values is not None
    by_slot = backend.pool_backward(kept, gradients.values, True, True)
    found = {"gradients of values": of_values, "gradients of scores": of_scores, "vectors pooled by slot": pooled,
             "their gradients of values": by_slot[0], "their gradients of weights": by_slot[1]}  # fmt: skip
    return answer._asdict() | found
