"""How a kernel is started.

At every start Triton finds out anew which of a kernel's versions fits the arguments, and tells its own profiler. That
takes longer than the kernel. Here both are done once: a `Start` is made for one kind of arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor


class Start:
    """A kernel, with all of its arguments but the first ones.

    Args:
        kernel: its parameters are tensors first, then numbers, then constants.
        numbers: the numbers, the same at every start.
        num_warps: what the kernel is compiled for.
        constants: likewise.
    """

    def __init__(self, kernel: Any, *numbers: float, num_warps: int, **constants: Any):
        self.kernel, self.numbers, self.constants = kernel, numbers, constants | {"num_warps": num_warps}
        self.rest = (*numbers, *constants.values())  # of these only the number counts when a version is started
        self.run: Callable[..., None] | None = None  # starts a version of the kernel
        self.version: tuple[Any, ...] = ()  # what it has to know of it
        self.stream: Callable[[], int] = int

    def __call__(self, grid: tuple[int, int], *given: Tensor | float | None) -> None:
        """Run the kernel on the current device, which is always the same one.

        What is given must always be of the same kind: tensors of the same dtypes, at addresses that 16 divides or not,
        numbers, None.
        """
        if self.run is not None:
            pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in given]
            self.run(*grid, 1, self.stream(), *self.version, *pointers, *self.rest)
        elif compiled := self.kernel[grid](*given, *self.numbers, **self.constants):  # None in Triton's interpreter
            from triton.runtime import driver

            self.version = compiled.function, compiled.packed_metadata, *[None] * 3  # no hooks, no word to them
            self.stream = partial(driver.active.get_current_stream, driver.active.get_current_device())
            self.run = compiled.run  # last: another thread may start the same kernel as soon as it is there
