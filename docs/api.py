"""How the API pages read the code: where each package lies, how docstrings become Markdown, which names are links.

MkDocs calls the functions (`hooks` in mkdocs.yml), griffe the class (`extensions`). The code is read, not imported.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

from griffe import Class, ExprCall, Extension, Object

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "build" / "sources"  # mkdocs.yml looks for shtopk here
SHAPE = re.compile(r"(?<![\w`\]])\[(?:\*|[A-Za-z])[^\[\]`]*\](?![`(\[])")
CODE = re.compile(r"(<(pre|a|h[1-6])\b.*?</\2>)|<code>(?:shtopk\.)?([A-Za-z][\w.]*)(\([^<]*\))?</code>", re.DOTALL)


def on_startup(command, dirty) -> None:
    """Lay the packages out before mkdocstrings looks for their folder."""
    lay_out()


def on_pre_build(config) -> None:
    """Lay the packages out again: `mkdocs serve` builds more than once."""
    lay_out()


def lay_out() -> None:
    """Copy the packages to where they are installed: models/ becomes shtopk/models, and so on."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    shutil.rmtree(SOURCES, ignore_errors=True)  # modules that are gone
    places = {"shtopk": "shtopk"} | setuptools["package-dir"]
    for package, folder in places.items():
        for source in (ROOT / folder).rglob("*.py"):
            copy = SOURCES / package.replace(".", "/") / source.relative_to(ROOT / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())


def on_page_content(html: str, page, config, files) -> str:
    """Link each name in backticks that stands on an API page, `TopK.pool` and `pool_encoder(...)` too."""
    known = places_of(described())

    def link(match: re.Match) -> str:
        first, _, rest = (match[3] or "").partition(".")
        for name, member in ((match[3], ""), (f"shtopk.{match[3]}", ""), (first, rest)):
            if name in known:
                target = ".".join(filter(None, (known[name], member)))
                return f'<autoref optional identifier="{target}">{match[0]}</autoref>'
        return match[0]

    return CODE.sub(link, html)


def described() -> Iterator[str]:
    """The full names that the API pages describe, such as shtopk.TopKPooling."""
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        yield from re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def places_of(names: Iterator[str]) -> dict[str, str]:
    """{full name, or its last part: full name}. A last part of two names, or a common word, stands for nothing."""
    places: dict[str, str] = {}
    twice: set[str] = set()
    for name in names:
        short = name.rpartition(".")[2]
        if short in places:
            twice.add(short)
        places[name] = name
        if name.count(".") == 1 or not short.islower() or "_" in short:
            places[short] = name
    return {name: place for name, place in places.items() if name not in twice}


class Docstrings(Extension):
    """Make docstrings, which are written to be read in a terminal, good Markdown: [B, n, d] becomes code."""

    def on_object(self, *, obj: Object, **kwargs) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **kwargs) -> None:
        """List the fields of a command line, `name: type = option(default, help)`, with their help."""
        lines = []
        for name, field in cls.attributes.items():
            call = field.value
            if isinstance(call, ExprCall) and str(call.function) in ("option", "_option"):
                field.value, text = call.arguments[:2]  # the signature shows the default alone
                if isinstance(text, str):  # in quotes; else an f-string, of a command that is on no page
                    lines.append(f"    {name}: {literal_eval(text)}")
        if lines and cls.docstring is not None and "\nArgs:\n" not in cls.docstring.value:
            cls.docstring.value = as_markdown(cls.docstring.value + "\n\nArgs:\n" + "\n".join(lines))


def as_markdown(docstring: str) -> str:
    """The docstring with its shapes as code, and its example under the name that griffe knows.

    >>> as_markdown("Pool values [*, n, d].")
    'Pool values `[*, n, d]`.'
    """
    parts = re.split(r"^(Example:\n(?:(?: .*)?\n?)+)", docstring, flags=re.MULTILINE)
    for i, part in enumerate(parts):  # the example has an odd place
        if i % 2:
            parts[i] = part.replace("Example:", "Examples:", 1)
        else:  # ">= 1" where a line or an explanation begins would be a quotation
            parts[i] = re.sub(r"^(\s*(?:\w+: )?)>", r"\1\\>", SHAPE.sub(r"`\g<0>`", part), flags=re.MULTILINE)
    return "".join(parts)
