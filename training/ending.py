"""How a run ends, if not well: with one line that says why, and an exit code."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NoReturn

from shtopk.training.aliases import with_our_names
from shtopk.training.checkpoints import CheckpointError, reason
from shtopk.training.console import PROGRAM, tell
from shtopk.training.interruption import Interrupted, Terminated, terminable
from shtopk.training.run import Run
from shtopk.training.step import Diverged

RESUME = "--resume"


@contextmanager
def one_line_at_the_end(argv: list[str]) -> Iterator[SimpleNamespace]:
    """Inside this context failures and signals end the process: exit code 1, and 130 (Ctrl-C) or 143 (SIGTERM).

    Yields:
        An object whose `run` is to be set as soon as there is one to go on with; its lock is released in any case.
    """
    begun = SimpleNamespace(run=None)
    try:
        with terminable():
            yield begun
    except KeyboardInterrupt as stop:
        when = "before training began" if begun.run is None else f"after training; {how_to_go_on(argv)}"
        _end(begun.run, f"stopped {when}", 143 if isinstance(stop, Terminated) else 130)
    except Interrupted as stop:
        _end(begun.run, f"{stop}; {how_to_go_on(argv)}", stop.exit_code)
    except (CheckpointError, Diverged) as error:
        _end(begun.run, str(error), 1)
    except OSError as error:
        _end(begun.run, f"cannot read or write: {reason(error)}; {how_to_go_on(argv)}", 1)
    finally:
        if begun.run is not None:
            begun.run.lock.release()


def _end(run: Run | None, line: str, code: int) -> NoReturn:
    tell(line)
    if run is not None:
        run.accelerator.end_training()
    sys.exit(code)


def how_to_go_on(argv: list[str]) -> str:
    """The command that goes on where this one stopped."""
    words = with_our_names(argv)
    kept = [word for word, before in zip(words, ["", *words], strict=False)
            if not word.startswith(RESUME) and before != RESUME]  # fmt: skip
    launcher = " (by the same launcher)" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"go on with{launcher}: {shlex.join(['python', PROGRAM, *kept, RESUME, 'latest'])}"
