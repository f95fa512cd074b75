"""What a call asked for, and the forward pass under way; both kept outside the model, for each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.integrations.layers.state import still_under_way


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
        of: the module that runs the layers of the model that is asked; None: any model is.
        outer: what a call around it wants, whose pass has not begun either.
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

    def but(self, given: dict[str, Any], outer: Request | None = None) -> Request:
        """A request that wants this, by the names above, and beside it what this one wants; None changes nothing."""
        wanted: dict[str, Any] = {"k": self.k, "compress_mask": self.compress_mask, "labels": self.labels}
        wanted |= {"learning": self.learning, "unpooled": self.unpooled, "begin": self.begin, "of": self.of}
        wanted |= {"generating": self.generating, "record": self.record}
        return Request(**(wanted | {name: value for name, value in given.items() if value is not None}), outer=outer)

    def to(self, stack: nn.Module | None) -> Request:
        """What is asked of the model with this stack: if another one is, to be unpooled and to record alone."""
        if stack is None or self.of is None or self.of is stack:
            return self
        return Request(unpooled=self.unpooled, record=self.record)


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


REQUEST = OfThread(Request())  # of the innermost context
CALLED = OfThread(None)  # of the innermost call of a model, until its pass begins
RUNNING = OfThread(None)  # the innermost forward pass


@contextmanager
def asking(of: nn.Module | None = None, **wanted: Any) -> Iterator[None]:
    """A context in which calls, of the model with this stack, want this of their prompts, by the names of `Request`.
    What is interrupted in it, as by Ctrl-C, has ended with it.
    """
    request, called, running = REQUEST.get(), CALLED.get(), RUNNING.get()
    REQUEST.set(request.to(of).but({"of": of, **wanted}))
    try:
        yield
    finally:
        REQUEST.set(request)
        CALLED.set(called)
        RUNNING.set(running)


def request_around(module: nn.Module) -> Request:
    """What the innermost context around a module's call wants. A replica of `nn.DataParallel` runs in a thread of its
    own, while the one that called waits: the context is that one's.
    """
    return REQUEST.of_process if getattr(module, "_is_replica", False) else REQUEST.get()


def begin_call(stack: nn.Module, wanted: dict[str, Any], around: Request) -> None:
    """Begin a call, of the model with this stack, that wants this, in a context that wants what is around."""
    CALLED.set(around.to(stack).but({"of": stack, **wanted}, outer=still_under_way(CALLED.get(), stack)))


def take_request(stack: nn.Module, around: Request) -> Request:
    """What is asked of the pass that begins now. Nothing is left of the call's request."""
    request = CALLED.get()
    if request is None or request.of is not stack:
        return around.to(stack)
    CALLED.set(request.outer)
    return request
