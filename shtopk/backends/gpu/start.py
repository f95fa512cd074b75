"""How a kernel is started.

Triton works out anew at every start which of a kernel's versions fits the arguments, which takes longer than the
kernel does. Here that is asked for once for each kind of arguments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

_versions: dict[tuple, Any] = {}


def start(kernel: Any, grid: tuple[int, ...], *arguments: Any, num_warps: int, **constants: Any) -> None:
    """Run a kernel, compiled when arguments of this kind come first; in Triton's interpreter, if that is on."""
    if not isinstance(kernel, JITFunction):
        kernel[grid](*arguments, **constants)
        return
    kind = (kernel, torch.cuda.current_device(), num_warps, *constants.values(), *map(_kind, arguments))
    version = _versions.get(kind)
    if version is None:
        _versions[kind] = kernel[grid](*arguments, num_warps=num_warps, **constants)
    else:
        addresses = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
        version[(*grid, 1, 1)[:3]](*addresses, *constants.values())


def _kind(x: Any) -> Any:
    """What Triton compiles apart: types, addresses and numbers that divide by 16, the number 1, None."""
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    if isinstance(x, int):
        return (x % 16 == 0, x == 1, -(2**31) <= x < 2**31)
    return None if x is None else float
