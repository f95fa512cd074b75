"""Who computes: tensor operations, C on a CPU, Triton kernels on a GPU, behind one face.

A backend chooses and pools in one go, and keeps for its backward pass what only it understands. How many tokens carry
weight is its own affair: nothing outside has a shape that depends on data.
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
    """The backend that computes with such tensors."""
    return next(backend for backend in BACKENDS.values() if backend.serves(values, scores))
