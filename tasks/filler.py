"""Filler text: the docstrings of installed libraries, read from their source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from shtopk.tasks.packages import package_folder
from shtopk.tasks.split import digest, normalise

PACKAGES = ("numpy", "pandas", "scipy", "sklearn")
SHORTEST = 300  # characters of a docstring worth reading
LEAST_DOCUMENTED = 0.5  # share of a file that must be documentation; the others take long to parse and hold little


def passages(low: float, high: float) -> Iterator[list[str]]:
    """Yield docstrings as lists of paragraphs, in an order that depends only on the installed versions.

    Files are spread over [0, 1) by the hash of their path; those in [low, high) are read.
    """
    for file in source_files(low, high):
        for text in docstrings(file.read_text(encoding="utf-8", errors="ignore")):
            yield [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def source_files(low: float, high: float) -> list[Path]:
    """The Python files of the packages whose place in [0, 1) lies in [low, high), in this order, without tests."""
    files = {}
    for package in PACKAGES:
        folder = package_folder(package, "train")
        for file in folder.rglob("*.py"):
            path = file.relative_to(folder).as_posix()
            if "tests/" not in path:
                place = int(digest(f"{package}/{path}")[:12], 16) / 16**12
                if low <= place < high:
                    files[place] = file
    return [files[place] for place in sorted(files)]


def docstrings(source: str) -> Iterator[str]:
    """Yield the long docstrings of a module, its classes and functions; none of a file that is mostly code."""
    documented = sum(len(part) for part in source.split('"""')[1::2] if len(part) >= SHORTEST)
    if documented < LEAST_DOCUMENTED * max(1, len(source)):
        return
    try:
        nodes: list = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return
    while nodes:
        node = nodes.pop()
        text = ast.get_docstring(node)
        if text and len(normalise(text)) >= SHORTEST:
            yield text
        nodes += [child for child in node.body if isinstance(child, ast.FunctionDef | ast.ClassDef)]
