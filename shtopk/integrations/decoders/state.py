"""What a call asked for, and the forward pass under way; both kept outside the model, for each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn


class Request(NamedTuple):
    """What a caller wants of a prompt.

    Attributes:
        k: in place of the poolings' own; None: theirs.
        compress_mask: [B, n] what is to be pooled; None: the prompt but its end.
        labels: [B, n] of a language model; they tell where the prompt ends.
        unpooled: the poolings that are switched off.
        begin: what makes the pass, in place of `Pass`.
    """

    k: int | float | None = None
    compress_mask: Tensor | None = None
    labels: Tensor | None = None
    unpooled: tuple[nn.Module, ...] = ()
    begin: Callable[..., Any] | None = None


class ThreadState(threading.local):
    """The state of one thread.

    Attributes:
        request: of the call under way.
        running: the innermost forward pass.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = [Request()]  # of the calls under way, the innermost last
        self.running: Any = None

    @property
    def request(self) -> Request:
        return self.requests[-1]

    def ask(self, **wanted: Any) -> None:
        """Begin a call that wants this, by the names of `Request`, beside what those around it want."""
        given = {name: value for name, value in wanted.items() if value is not None}
        self.requests.append(self.request._replace(**given))

    def answered(self) -> None:
        """End the call."""
        self.requests.pop()


STATE = ThreadState()


@contextmanager
def asking(**wanted: Any) -> Iterator[None]:
    """A context in which calls want this of their prompts, by the names of `Request`."""
    STATE.ask(**wanted)
    try:
        yield
    finally:
        STATE.answered()
