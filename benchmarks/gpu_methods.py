"""What is compared on a GPU: ways to pool, with their inputs, and the bytes that each has to move at least."""

from collections.abc import Callable
from functools import partial

import torch
from dftopk import dftopk
from literal import gather, literal_successive_halving
from torch import Tensor

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

BATCH, DEPTH = 16, 256
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ITERATIVE = "iterative top-k"

Pool = Callable[[Tensor, Tensor, int], Tensor]


def pooled_by(operator: Callable, values: Tensor, scores: Tensor, k: int, **options) -> Tensor:
    return operator(values, scores, k, **options).values


METHODS: dict[str, Pool] = {
    "successive halving": partial(pooled_by, successive_halving_topk, boost="relative", temperature=1 / 16),
    "softmax, T = 1/16": partial(pooled_by, successive_halving_topk, temperature=1 / 16),
    "softmax, T = 4": partial(pooled_by, successive_halving_topk, temperature=4.0),
    "softmax, T = 1": partial(pooled_by, successive_halving_topk),
    "select and merge": partial(pooled_by, select_and_merge_topk),
    "torch.topk + gather": gather,
    "hard_topk, gated": partial(pooled_by, hard_topk, gradient="gate"),
    "DFTopK's gate": dftopk,
    "literal Algorithm 2": literal_successive_halving,
    ITERATIVE: partial(pooled_by, iterative_topk),
}


def floor_bytes(n: int, k: int, size: int) -> tuple[int, int]:
    """Bytes that forward and backward must move at least: numbers of so many bytes.

    Forward reads the scores and k vectors and writes k; backward reads the gradient of these and, for the gradient of
    the scores, the k vectors, and writes the gradients of all values and scores.
    """
    scores, kept, values = BATCH * n * size, BATCH * k * DEPTH * size, BATCH * n * DEPTH * size
    return scores + 2 * kept, 2 * kept + values + scores


def inputs(n: int, k: int, dtype: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scores, and a gradient of what is pooled."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = (BATCH, n, DEPTH), (BATCH, n), (BATCH, k, DEPTH)
    values, scores, gradient = (
        torch.randn(shape, generator=generator, device=device, dtype=DTYPES[dtype]) for shape in shapes
    )
    return values.requires_grad_(), scores.requires_grad_(), gradient


class Step:
    """Forward and backward of a method at one place of the grid."""

    def __init__(self, pool: Pool, n: int, k: int, dtype: str, device: str):
        self.pool, self.k = pool, k
        self.values, self.scores, self.gradient = inputs(n, k, dtype, device)

    def forward(self) -> Tensor:
        return self.pool(self.values, self.scores, self.k)

    def backward(self, out: Tensor, *, again: bool = False) -> tuple:
        given = (self.values, self.scores)
        return torch.autograd.grad(out, given, self.gradient, retain_graph=again, allow_unused=True)

    def both(self) -> tuple:
        return self.backward(self.forward())
