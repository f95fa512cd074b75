"""What a command says on stderr: one line, from the first of several processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

PROGRAM = "train.py"
LONGEST = 1000  # characters of a refusal


def tell(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"{PROGRAM}: {line}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong with the input, and exit with code 2."""
    line = " ".join(message.split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
    # Of what is not printable a terminal obeys some, and some cannot be written at all.
    tell("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line))
    sys.exit(2)


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Inside this context the given errors are refusals."""
    try:
        yield
    except errors as error:
        refuse(str(error))
