"""SIGTERM and Ctrl-C: noted at once, obeyed after the update."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came where nothing is to be finished first."""


class Interrupted(Exception):
    """Training was stopped by a signal, and saved.

    Args:
        line: says so.
        exit_code: of the process.
    """

    def __init__(self, line: str, exit_code: int):
        super().__init__(line)
        self.exit_code = exit_code


@contextmanager
def terminable() -> Iterator[None]:
    """Inside this context SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # Python allows no other to handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """Inside this context the first of these signals is noted; a second one has its usual effect.

    Attributes:
        signal: the one noted, or None.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """The signal's name; SIGTERM where another process received it."""
        return (self.signal or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """130 (SIGINT) or 143 (SIGTERM), as a shell reports a process that the signal ended."""
        return 128 + (self.signal or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()
