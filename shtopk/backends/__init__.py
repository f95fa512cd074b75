"""The backends that compute the operators: Triton kernels on a GPU, C on a CPU, tensor operations anywhere.

A backend chooses and pools in one step. It keeps for its backward pass what it likes, and nothing else reads that. How
many tokens carry weight depends on data. No tensor that leaves a backend has a shape that depends on it.
"""

from __future__ import annotations

from torch import Tensor

from shtopk.backends.face import Answer, Backend, Gradients, Wanted
from shtopk.backends.gpu import Gpu
from shtopk.backends.native import Native
from shtopk.backends.tensors import Tensors

__all__ = ["BACKENDS", "Answer", "Backend", "Gradients", "Wanted", "pick"]

BACKENDS: dict[str, Backend] = {"gpu": Gpu(), "native": Native(), "tensors": Tensors()}  # the first that serves


def pick(values: Tensor, scores: Tensor) -> Backend:
    """The first backend that computes with such tensors."""
    return next(backend for backend in BACKENDS.values() if backend.serves(values, scores))
