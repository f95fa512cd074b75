"""How a kernel is started.

Triton works out anew at every start which of a kernel's versions fits the arguments, which takes longer than the
kernel does. Here that is asked for once: a `Start` is made for one kind of arguments.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Start:
    """A kernel, with all of its arguments but the first ones.

    Args:
        kernel: one whose parameters are tensors first, then numbers, then constants.
        numbers: those, the same at every start.
        num_warps, constants: what the kernel is compiled for.
    """

    def __init__(self, kernel: Any, *numbers: float, num_warps: int, **constants: Any):
        self.kernel, self.numbers, self.constants = kernel, numbers, constants | {"num_warps": num_warps}
        self.rest = (*numbers, *constants.values())  # of these only the number counts when a version is started
        self.version: Any = None

    def __call__(self, grid: tuple[int, int], *given: Tensor | float | None) -> None:
        """Run it on the current device. What is given is always of the same kind: tensors of the same dtypes, at
        addresses that 16 divides or not, numbers, None."""
        if self.version is None:  # in Triton's interpreter it stays so
            self.version = self.kernel[grid](*given, *self.numbers, **self.constants)
        else:
            self.version[(*grid, 1)](*[x.data_ptr() if isinstance(x, Tensor) else x for x in given], *self.rest)
