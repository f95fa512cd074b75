"""How a run ends if it does not end well: after a signal or a failure, with one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

from shtopk.training.aliases import with_our_names
from shtopk.training.checkpoints import reason
from shtopk.training.console import command, tell_last
from shtopk.training.errors import CheckpointError, Diverged
from shtopk.training.exhaustion import is_out_of_memory, out_of_memory, what_helps

if TYPE_CHECKING:
    from shtopk.training.run import Run

RESUME = "--resume"


class Terminated(KeyboardInterrupt):
    """SIGTERM came at a point where nothing needs to be finished first."""


class Interrupted(Exception):
    """A signal stopped training after an update, which is saved. None: another process received the signal."""

    def __init__(self, received: signal.Signals | None, update: int):
        number = received or signal.SIGTERM
        super().__init__(f"stopped by {number.name} after update {update}")
        self.exit_code = 128 + number  # as a shell reports it


class Interruption:
    """Inside this context the first SIGTERM or Ctrl-C is only noted, as `received`. A second one works as usual."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._handling = ExitStack()

    def __enter__(self) -> Interruption:
        self._handling.enter_context(handling(self._note, signal.SIGTERM, signal.SIGINT))
        return self

    def __exit__(self, *exception) -> None:
        self._handling.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._handling.close()


@contextmanager
def handling(handler: Callable, *signals: signal.Signals) -> Iterator[None]:
    """Inside this context the handler gets these signals. In a thread it does nothing: Python allows no handlers."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in signals if main}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextmanager
def one_line_at_the_end(
    argv: list[str], *, trains: bool = True, again: str | None = None
) -> Iterator[SimpleNamespace]:
    """A context in which a failure or a signal ends the process with one line and an exit code.

    The code is 1 after a failure, 130 after Ctrl-C and 143 after SIGTERM. The context gives an object: set its `run`
    as soon as there is a run to go on with. The run's lock is always released.

    Args:
        argv: the command line, to say how to go on.
        trains: False: there will be no run to go on with.
        again: how to go on after a stop; None: the command itself.
    """

    def going_on() -> str:
        return again or how_to_go_on(argv)

    begun = SimpleNamespace(run=None)
    try:
        with handling(terminate, signal.SIGTERM):
            yield begun
    except KeyboardInterrupt as stop:
        when = " before training began" * trains if begun.run is None else f" {_where(begun.run)}; {going_on()}"
        _end(begun.run, f"stopped{when}", 143 if isinstance(stop, Terminated) else 130)
    except Interrupted as stop:
        _end(begun.run, f"{stop}; {going_on()}", stop.exit_code)
    except (CheckpointError, Diverged) as error:
        _end(begun.run, str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _end(begun.run, f"{out_of_memory(error)}; {what_helps(training=trains)}", 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not trains:  # nobody reads on, as behind `| head`
            raise
        _end(begun.run, f"cannot read or write: {reason(error)}" + (f"; {going_on()}" if trains else ""), 1)
    finally:
        if begun.run is not None:
            begun.run.lock.release()


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """A handler for SIGTERM that raises `Terminated`."""
    raise Terminated


def _where(run: Run) -> str:
    """Where a run was when it was stopped without a checkpoint."""
    if run.done:
        return "after training"
    return f"at once after update {run.progress.update}; updates since the last checkpoint are lost"


def _end(run: Run | None, line: str, code: int) -> NoReturn:
    tell_last(line)
    if run is not None:
        run.accelerator.end_training()
    sys.exit(code)


def how_to_go_on(argv: list[str]) -> str:
    """The command that goes on where this one stopped."""
    words = with_our_names(argv)
    kept = [word for word, before in zip(words, ["", *words], strict=False)
            if not word.startswith(RESUME) and before != RESUME]  # fmt: skip
    launcher = " (by the same launcher)" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"go on with{launcher}: {command([*kept, RESUME, 'latest'])}"
