"""torch.compile for the encoder, in training alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def compile_encoder(model: Any) -> None:
    """Let an encoder be compiled as it is first called, once for all lengths.

    A batch of a single window, and windows that are split, may add a graph each. What comes after the encoder is not
    compiled: the pooling has kernels of its own, and cutting documents into windows depends on them.
    """
    model.encoder.compile(dynamic=True)


def uncompiled() -> AbstractContextManager:
    """A context in which compiled modules run as they are: an evaluation would need graphs of its own."""
    return torch.compiler.set_stance("force_eager")
