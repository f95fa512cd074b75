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
        return None
    device = next(x.device.index for x in arguments if isinstance(x, Tensor))
    if device != torch.cuda.current_device():  # on which Triton starts kernels
        with torch.cuda.device(device):
            return start(kernel, grid, *arguments, num_warps=num_warps, **constants)
    kind, addresses = [kernel, device, num_warps, *constants.values()], []
    for x in arguments:
        if isinstance(x, Tensor):
            address = x.data_ptr()
            addresses.append(address)
            kind.append((x.dtype, x.device, address % 16))  # 16 bytes at once can be read at some addresses alone
        else:
            addresses.append(x)
            kind.append((x == 1, x % 16 == 0, x.bit_length() > 31) if isinstance(x, int) else type(x))
    version = _versions.get(tuple(kind))
    if version is None:
        _versions[tuple(kind)] = kernel[grid](*arguments, num_warps=num_warps, **constants)
    else:
        version[(*grid, 1, 1)[:3]](*addresses, *constants.values())
    return None
