"""Nothing that is read is run or unpickled: ruff's S and TID251 (pyproject.toml) see to most of it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("training", "tasks", "configs", "models", "shtopk")
SOURCES = [ROOT / "train.py", *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]


def unseen(source: str) -> set[str]:
    """exec and eval handed on without being called, a shell that is a variable, and comments that silence ruff."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} & {"exec", "eval"}
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword)} & {"shell"}
    return names | keywords | set(re.findall(r"noqa(?!:)|noqa:.*\b(?:S\d|TID\d)", source))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_is_run_or_unpickled(path):
    assert not unseen(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", ["map(exec, texts)", "run(text, shell=always)", "import dill  # noqa: TID251"])
def test_what_ruff_cannot_see_is_found(source):
    assert unseen(source)
