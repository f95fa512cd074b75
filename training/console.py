"""What a command says on stderr: one line that begins with its name, from one process only."""

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

LONGEST = 1000  # characters of a refusal
PATIENCE = 5  # seconds to wait for the other processes' store
_programs = ["train.py"]  # the last one speaks


def program() -> str:
    """The command that is running: train.py, or one such as "shtopk evaluate"."""
    return _programs[-1]


def command(words: list[str]) -> str:
    """The line that would run the present command with these words."""
    python = ["python"] if program().endswith(".py") else []
    return shlex.join([*python, *program().split(), *words])


@contextmanager
def speaking_as(name: str) -> Iterator[None]:
    """Inside this context `program` returns this name."""
    _programs.append(name)
    try:
        yield
    finally:
        _programs.pop()


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def tell(line: str) -> None:
    """Say a line on stderr, from the first process only."""
    if is_first():
        _say(line)


def tell_last(line: str) -> None:
    """Say on stderr why a process ends, unless another one has said so: the launcher then ends all of them."""
    if _ends_first():
        _say(line)


def _say(line: str) -> None:
    print(f"{program()}: {line}", file=sys.stderr)


def _ends_first() -> bool:
    """Whether no other process has asked this, as the store says in which the processes meet. Where it has no answer,
    a line is better said twice than not at all; where they have not met, the first process says it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    from torch.distributed import TCPStore, is_initialized  # late: it takes long to import

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and not is_initialized():
        return is_first()
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(place, port, is_master=False, timeout=timedelta(seconds=PATIENCE))
        return store.add(f"shtopk ended, start {start}", 1) == 1
    except (KeyError, RuntimeError, ValueError):
        return True


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong with the input, and exit with code 2."""
    line = " ".join(message.split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
    # Of what is not printable a terminal obeys some, and some cannot be written at all.
    tell_last("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line))
    sys.exit(2)


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Inside this context the given errors are refusals: one line, exit code 2.

    Among them a path that the system does not look at, such as one that is too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG and not isinstance(error, errors):
            raise
        refuse(f"{error.strerror}: {error.filename}" if error.errno == errno.ENAMETOOLONG else str(error))
    except errors as error:
        refuse(str(error))
