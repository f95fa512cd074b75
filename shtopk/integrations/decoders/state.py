"""What a call asked for, and the forward pass under way; both kept outside the model, for each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Request:
    """What a caller wants of a prompt.

    Attributes:
        k: in place of the poolings' own; None: theirs.
        compress_mask: [B, n] what is to be pooled; None: the prompt but its end.
        labels: [B, n] of a language model; they tell where the prompt ends.
        learning: whether a language model is called to be trained, by its own forward.
        unpooled: the poolings that are switched off.
        begin: what makes the pass, in place of `Pass`.
        generating: whether `generate` runs, whose steps add tokens and no padding.
        record: a list that gets the assignment of each prompt; None: nobody asks.
        of: the model that is called; None: `asking` was.
        outer: what the call around it wants.
    """

    def __init__(
        self,
        k: int | float | None = None,
        compress_mask: Tensor | None = None,
        labels: Tensor | None = None,
        learning: bool = False,
        unpooled: tuple[nn.Module, ...] = (),
        begin: Callable[..., Any] | None = None,
        generating: bool = False,
        record: list[Any] | None = None,
        of: nn.Module | None = None,
        outer: Request | None = None,
    ):
        self.k, self.compress_mask, self.labels = k, compress_mask, labels
        self.unpooled, self.begin, self.learning = unpooled, begin, learning
        self.generating, self.record, self.of, self.outer = generating, record, of, outer

    def but(self, given: dict[str, Any], of: nn.Module | None = None) -> Request:
        """A request inside this one that wants this, by the names above, and what this one wants beside."""
        wanted: dict[str, Any] = {"k": self.k, "compress_mask": self.compress_mask, "labels": self.labels}
        wanted |= {"learning": self.learning, "unpooled": self.unpooled, "begin": self.begin}
        wanted |= {"generating": self.generating, "record": self.record}
        return Request(**(wanted | given), of=of, outer=self)


class OfThread:
    """A value that each thread has its own of.

    torch.compile cannot trace thread-locals, so compiled code uses one value for the whole process: run it in one
    thread at a time. Every eager write sets it, too; and what compiled code wrote last is read by eager code that it
    calls.
    """

    def __init__(self, first: Any):
        self.of_thread, self.first = threading.local(), first
        self.of_process, self.compiled = first, False

    def get(self) -> Any:
        if torch.compiler.is_compiling() or self.compiled:
            return self.of_process
        return getattr(self.of_thread, "value", self.first)

    def set(self, value: Any) -> None:
        self.of_process, self.compiled = value, torch.compiler.is_compiling()
        if not torch.compiler.is_compiling():
            self.of_thread.value = value


REQUEST = OfThread(Request())  # of the innermost call under way
RUNNING = OfThread(None)  # the innermost forward pass


@contextmanager
def asking(**wanted: Any) -> Iterator[None]:
    """A context in which calls want this of their prompts, by the names of `Request`."""
    begin_asking(wanted)
    try:
        yield
    finally:
        end_asking()


def begin_asking(wanted: dict[str, Any], of: nn.Module | None = None) -> None:
    """Begin a call, of a model, that wants this; what is None is left as it was."""
    REQUEST.set(REQUEST.get().but({name: value for name, value in wanted.items() if value is not None}, of))


def end_asking() -> None:
    """End it."""
    REQUEST.set(REQUEST.get().outer)
