"""Following a page: its commands and its Python, one after the other in one folder, say what the page says they do."""

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from accelerate.state import AcceleratorState
from code_blocks import PYTHON, fenced, run

from shtopk.commands import main

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROMPT = "$ "


def transcript(page: Path, folder: Path, heading: str | None = None, **names) -> dict:
    """Run the blocks of a page in a folder: `console` and `python`, in their order.

    In a console block a line that begins with "$ " is a command, and below it stands what it prints, compared as
    doctest does: "..." stands for anything, and white space counts as such. Progress bars are left out of what is
    printed, and a command that prints nothing has nothing below. `shtopk` runs in this process. A command has to
    succeed, unless a line of its name ("shtopk train: ...") below it says why it does not.

    Args:
        heading: only the blocks between this heading and the next one.
        names: that the Python blocks find.

    Returns:
        The names that the Python blocks leave behind.
    """
    followed = 0
    with contextlib.chdir(folder):
        for block in fenced(page):
            if heading not in (None, block.heading):
                continue
            if block.language in PYTHON:
                names = run([block.code], **names)
            elif block.language == "console":
                for command, expected in typed(block.code):
                    compare(f"{page.name}, block of line {block.line}", command, expected)
            followed += block.language in (*PYTHON, "console")
    assert followed, f"nothing to run under {heading!r} in {page.name}"
    return names


def typed(code: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what is expected below it."""
    lines = code.splitlines(keepends=True)
    assert lines[0].startswith(PROMPT), f"expected a block that begins with {PROMPT!r}, got {lines[0]!r}"
    while lines:
        command = lines.pop(0).removeprefix(PROMPT)
        while command.endswith("\\\n"):
            command = command.removesuffix("\\\n") + lines.pop(0)
        expected = ""
        while lines and not lines[0].startswith(PROMPT):
            expected += lines.pop(0)
        yield command.strip(), expected


def compare(where: str, command: str, expected: str) -> None:
    """Run a command; AssertionError where it prints something else, or fails unexpectedly."""
    printed, code = shell(command)
    printed = without_bars(printed)
    checker, example = doctest.OutputChecker(), doctest.Example(command, expected)
    said = checker.output_difference(example, printed, FLAGS)
    assert checker.check_output(expected, printed, FLAGS), f"{where}: $ {command}\n{said}"
    refused = re.search(r"^shtopk( \w+)?: ", expected, re.MULTILINE)
    assert code == 0 or refused, f"{where}: $ {command}\nexit code {code}\n{printed}"


def without_bars(printed: str) -> str:
    """The lines of an output but for those that progress bars draw over and over."""
    lines = [re.sub(r"\x1b\[A", "", line) for line in re.split("\r|\n", printed)]
    return "".join(f"{line}\n" for line in lines if line.strip() and not re.search(r"%\|| examples/s\]", line))


def shell(command: str) -> tuple[str, int]:
    """What a line of commands prints, on both streams, and the exit code of the last; | and > have blanks around."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(command, comments=True):
        parts.append([]) if word == "|" else parts[-1].append(word)
    given, said, code = b"", "", 0
    for number, part in enumerate(parts):
        target = None
        if ">" in part:
            at = part.index(">")
            target, part = Path(part[at + 1]), part[:at]
        out, errors, code = _one(part, given)
        last = number == len(parts) - 1
        if last and target is None:
            errors += out
        elif target is not None:
            target.write_bytes(out)
        said, given = said + errors.decode(), out
    return said, code


def _one(words: list[str], given: bytes) -> tuple[bytes, bytes, int]:
    """What one command writes to stdout and to stderr, and its exit code."""
    if words[0] != "shtopk":
        words = [sys.executable, *words[1:]] if words[0] == "python" else words
        done = subprocess.run(words, input=given, capture_output=True, check=False)
        return done.stdout, done.stderr, done.returncode
    AcceleratorState._reset_state(reset_partial_state=True)  # as in a process of its own
    with tempfile.TemporaryFile() as stdin, _diverted(1) as out, _diverted(2) as errors:
        stdin.write(given)
        stdin.seek(0)
        before, sys.stdin = sys.stdin, io.TextIOWrapper(stdin)
        try:
            code = main(words[1:])
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.stdin.detach()
            sys.stdin = before
            AcceleratorState._reset_state(reset_partial_state=True)  # the next one may compute in another precision
            sys.stdout.flush()
            sys.stderr.flush()
        out.seek(0)
        errors.seek(0)
        return out.read(), errors.read(), code


@contextlib.contextmanager
def _diverted(number: int) -> Iterator[io.BufferedRandom]:
    """A file that gets what is written to stdout (1) or stderr (2), by Python and beside it."""
    redirect = {1: contextlib.redirect_stdout, 2: contextlib.redirect_stderr}[number]
    kept = os.dup(number)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), number)
            with open(number, "w", encoding="utf-8", closefd=False) as text, redirect(text):
                yield file
    finally:
        os.dup2(kept, number)
        os.close(kept)
