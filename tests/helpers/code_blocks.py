"""The blocks of code in a page, by their language, and running those of Python."""

import doctest
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


PYTHON = ("python", "pycon")  # pycon: as typed at the prompt


class Block(NamedTuple):
    """What stands between two lines of three backticks."""

    language: str  # "" where none is named
    code: str
    line: int  # of the first backticks, from 1
    heading: str | None  # the last one above


def page(name: str) -> Path:
    """A page of docs/ by its name, such as "train". Whoever tests a page's blocks names it so."""
    path = DOCS / f"{name}.md"
    assert path.is_file(), path
    return path


def fenced(path: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    found, last, end = [], None, 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        last = (re.findall(r"^#+ (.*)$", text[end : match.start()], re.MULTILINE)[-1:] or [last])[0]
        found.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, last))
        end = match.end()
    return found


def blocks(path: Path, heading: str | None = None) -> list[str]:
    """The Python of a page, in order: all of it, or the blocks between a heading and the next one."""
    found = [block.code for block in fenced(path)
             if block.language in PYTHON and heading in (None, block.heading)]  # fmt: skip
    assert found or heading is None, f"no Python under {heading!r} in {path.name}"
    return found


def run(code: list[str], **names) -> dict:
    """The names that blocks leave behind, all run in one namespace as one module after another."""
    for block in code:
        if block.startswith(">>>"):
            _run_as_typed(block, names)
        else:
            exec(compile(block, "<block of a page>", "exec"), names)
    return names


def _run_as_typed(block: str, names: dict) -> None:
    """A block of lines typed at the prompt, each of which prints what stands below."""
    test = doctest.DocTestParser().get_doctest(block, {}, "block of a page", None, 0)
    test.globs = names  # get_doctest copies those it is given
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)
