"""What every operator is tried on, and the gradients that are compared."""

from functools import partial

import torch

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

SHAPES = [(1, 1), (2, 1), (3, 2), (7, 1), (7, 3), (8, 2), (12, 5), (16, 4), (21, 2), (40, 13), (63, 8), (5, 5), (4, 9)]


def variant(name, operator, **options):
    """An operator with these options; tests show it by the name."""
    with_options = partial(operator, **options)
    with_options.__name__ = name
    return with_options


gated = variant("gated", hard_topk, gradient="gate")
straight_through = variant("straight_through", hard_topk, gradient="straight_through")
softmax_halving = variant("softmax_halving", successive_halving_topk, boost="softmax")
relative_halving = variant("relative_halving", successive_halving_topk, boost="relative")
power_halving = variant("power_halving", successive_halving_topk, boost="power")

SUMS_TO_ONE = [softmax_halving, relative_halving, select_and_merge_topk, iterative_topk, hard_topk, straight_through]
OPERATORS = [*SUMS_TO_ONE, gated]


def sample(n, d=3, batch=4, dtype=torch.float64, seed=0, masked=True):
    """Values, scores in (0, 1) and a mask in which row 0 is full and the last row is empty."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    scores = torch.rand(batch, n, generator=generator, dtype=torch.float64)
    mask = torch.rand(batch, n, generator=generator) < (0.7 if masked else 1.0)
    mask[0], mask[-1] = True, not masked
    return values.to(dtype).requires_grad_(), scores.to(dtype).requires_grad_(), mask


def gradients(values, scores, pooled_values, pooled_scores):
    """Gradients of one fixed function of the output, the same for both implementations."""
    weight = torch.linspace(-1, 1, pooled_values.numel(), dtype=pooled_values.dtype).to(pooled_values.device)
    weight = weight.view_as(pooled_values)
    objective = (weight * pooled_values).sum() + (weight[..., 0] * pooled_scores).sum()
    return torch.autograd.grad(objective, (values, scores))
