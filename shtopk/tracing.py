"""Which form of an operator the present tracing, if any, can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def form(eager: Callable[..., Any], compiled: Callable[..., Any], onnx: Callable[..., Any]) -> Callable[..., Any]:
    """One of three forms of an operator: for eager mode, for `torch.compile` and `torch.export`, and for ONNX."""
    if torch.onnx.is_in_onnx_export():
        return onnx
    return compiled if torch.compiler.is_compiling() else eager


def stable_sort(x: Tensor, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Sort x [*, n] along the last dimension, equals in their order: the values, and where they stood."""
    if torch.onnx.is_in_onnx_export():
        return x.sort(dim=-1, descending=descending)  # all of ONNX's sorting is stable
    return x.sort(dim=-1, descending=descending, stable=True)
