"""What a command says on stderr: one line that begins with its name, from the first process only."""

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

LONGEST = 1000  # characters of a refusal
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
        print(f"{program()}: {line}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong with the input, and exit with code 2."""
    line = " ".join(message.split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
    # Of what is not printable a terminal obeys some, and some cannot be written at all.
    tell("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line))
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
