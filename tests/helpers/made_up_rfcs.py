"""RFCs about nothing, laid out as their editor would."""

import gzip
import json
import random
import re
import textwrap
from pathlib import Path
from string import ascii_lowercase

from shtopk.tasks.rfc import plain

STATUS = "This document is made up. Distribution of this memo is unlimited."


def prose(seed: int, words: int) -> str:
    """Sentences of ten made-up words; those of different seeds have next to no word in common."""
    rng = random.Random(f"prose {seed}")
    made = ["".join(rng.choice(ascii_lowercase) for _ in range(rng.randrange(3, 9))) for _ in range(words)]
    return " ".join(" ".join(made[i : i + 10]).capitalize() + "." for i in range(0, words, 10))


def wrapped(text: str, indent: int = 3) -> str:
    margin = " " * indent
    return textwrap.fill(
        " ".join(text.split()), 70, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )


def published(title: str, abstract: str, body: str, number: int = 9999, footer: str = "[Page {}]") -> str:
    """An RFC as its editor would lay it out: a front page, then pages of 40 lines with headers and footers."""
    sections = {
        "Status of This Memo": STATUS,
        "Copyright Notice": "Copyright (c) 1999 by nobody. All rights imagined.",
        "Abstract": abstract,
    }
    front = (
        f"Network Working Group{'A. Author':>49}\nRequest for Comments: {number}{'May 1999':>45}\n\n\n{title:^72}\n"
    )
    front += "".join(f"\n{name}\n\n{wrapped(text)}\n" for name, text in sections.items())
    front += "\nTable of Contents\n\n   1. Introduction ................ 2\n   2. Details ..................... 3\n"
    back = "Author's Address\n\n   A. Author\n   Nowhere\n\n   Email: author@example.com\n"
    lines = f"{front}\n1. Introduction\n\n{body}\n\n{back}".split("\n")
    pages = ["\n".join(lines[i : i + 40]) for i in range(0, len(lines), 40)]
    return "".join(
        f"{page}\n\n\nAuthor                       Informational                     {footer.format(i)}\n\f\n"
        f"RFC {number}                      {title[:20]}                     May 1999\n\n\n"
        for i, page in enumerate(pages, 1)
    )


def write(folder: Path, number: int, *, abstract=None, text=None, facts=None, zipped=False) -> None:
    """rfcN.json and rfcN.txt, usable unless the arguments say otherwise."""
    abstract = prose(number, 40) if abstract is None else abstract
    title = f"The Protocol of {number}"
    if text is None:
        text = published(title, plain(abstract), wrapped(prose(-number, 400)), number)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "abstract": abstract, "obsoletes": [], "obsoleted_by": []} | (facts or {})
    (folder / f"rfc{number}.json").write_text(json.dumps(content))
    content = text if isinstance(text, bytes) else text.encode()
    (folder / f"rfc{number}.txt{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
