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
    temperature = torch.tensor(0.25)
    gradients = Gradients(*(x.to(device) for x in weights))
    given = values.to(device), scores.to(device), mask.to(device), temperature, K
    for relative in (False, True):
        rule = Rule(relative, 0.0)
        found, expected = (_all(one, given, gradients, rule) for one in (backend, Tensors()))
        for name, x in found.items():
            if not torch.allclose(x.float(), expected[name].float(), rtol=1e-3, atol=1e-4):
                worst = (x.float() - expected[name].float()).abs().max()
                return f"{name} differ by up to {worst:.2g}"
    return ""


def _all(backend: Backend, given: tuple, gradients: Gradients, rule: Rule) -> dict[str, Tensor]:
    answer, saved = backend.forward(*given, rule)
    of_values, of_scores, _ = backend.backward(saved, gradients, rule, Wanted(True, True, False))
    pooled, kept = backend.pool(given[0], answer.weights, answer.slots, K)
    pool_of_values, pool_of_weights = backend.pool_backward(kept, gradients.values, True, True)
    gradients_found = {"gradients of values": of_values, "gradients of scores": of_scores,
                       "pooled vectors": pooled, "gradients of pooled values": pool_of_values,
                       "gradients of weights": pool_of_weights}  # fmt: skip
    return answer._asdict() | gradients_found
