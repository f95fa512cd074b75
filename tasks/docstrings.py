"""Docstrings of installed libraries: the summary line is to be written from the rest of the docstring."""

from __future__ import annotations

import ast
import gc
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm.auto import tqdm

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.baselines import DOCSTRING_BASELINES
from shtopk.tasks.cache import cached
from shtopk.tasks.duplicates import Similar, trigrams
from shtopk.tasks.packages import package_folder, version_of
from shtopk.tasks.split import SPLITS, shuffled
from shtopk.tasks.table import to_datasets
from shtopk.tasks.task import Summarization

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

# Each is installed with this project's extra "train", so the corpus depends on the pinned versions alone.
PACKAGES = (
    "accelerate", "datasets", "fsspec", "huggingface_hub", "joblib", "mpmath", "narwhals", "networkx", "numpy",
    "pandas", "scipy", "sklearn", "sympy", "tensorboard", "torch", "transformers",
)  # fmt: skip
SIZES = {"test": 300, "validation": 300}  # pairs held out
MOST_PER_FILE = 10  # pairs held out per file
SUMMARY_WORDS = (3, 30)
BODY_WORDS = (30, 300)  # a longer body is cut after the last paragraph that fits
SUPPORT = 0.4  # share of a summary's longer words that its text must hold
BODY_SIMILARITY, SUMMARY_SIMILARITY = 0.25, 0.6  # Jaccard of trigrams, of words: from here on near-duplicates

# Tests, vendored code, and transformers' models, most of which are generated from each other.
_SKIPPED_FOLDERS = {"tests", "test", "testing", "externals", "_external", "_vendor", "vendor", "models"}
_SKIPPED_FILE = re.compile(r"test_|conftest|.*_tests?\.py")

_FENCE = re.compile(r"^ *```.*?(^ *```|\Z)", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^( *)\.\. (?!note|warning).*(\n\1 +.*|\n *$)*", re.MULTILINE)  # with what is indented below
_HEADING = re.compile(
    r"^(?:([A-Z][\w -]*):?\n[-=~]{3,}"
    r"|((?:(?:Keyword )?Arg|(?:Keyword )?Argument|Attribute|Example|Input|Note|Output|Parameter|Raise|Reference|Return"
    r"|See also|Shape|Usage|Warn|Warning|Yield)s?(?: usage)?):{1,2}) *$",
    re.MULTILINE | re.IGNORECASE,
)
_DROPPED_SECTION = re.compile(r"examples?|usages?|references?|see also", re.IGNORECASE)
_MARKER = re.compile(  # of notes, quotes, fields and the borders of tables
    r"\.\. (?:note|warning)s? ?:{1,2}|^>(?!>) *(?:\[!\w+\])?|^ *:(?:param|type|arg)\b *|^[-=~+| ]{4,}$", re.MULTILINE
)
_ROLE = re.compile(r"\[?(?::[\w:+-]+:)?(`{1,2})[~!]?\.?([^`]+?)(?:\s+<[^`>]*>)?\1_{0,2}\]?")
_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")
_CITATION = re.compile(r"\s*\[[\w-]+\]_")
_NEXT_LINE = re.compile(r"[A-Za-z0-9`'\"(\[:](?!param)")  # how a line begins that continues a sentence
_SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)(?<=[.!?])\s+(?=[A-Z])")
_NO_SUMMARY = re.compile(  # stubs, cross-references, code and formulas
    r"(additionally|adapted|alias|also|args|arguments|copied|copyright|deprecated|example|fixme|from|note|parameters"
    r"|returns?:|same as|see|tests?|todo|usage|warning|xxx)\b|\w[\w.]*\(|.*([\\$={}<>|^#*@]|::|%\(|https?:)"
    r"|.*\b(deprecated|same as|see)\b",
    re.IGNORECASE,
)


class Pair(NamedTuple):
    signature: str
    body: str
    summary: str


def source_files(packages: Sequence[str]) -> list[tuple[str, Path]]:
    """(path inside the packages, file) of every Python file but tests and vendored code, in the order of a hash."""
    files = {}
    for package in packages:
        folder = package_folder(package, "train")
        for file in folder.rglob("*.py"):
            path = file.relative_to(folder)
            if not _SKIPPED_FOLDERS & set(path.parts) and not _SKIPPED_FILE.match(path.name):
                files[f"{package}/{path.as_posix()}"] = file
    paths = list(files)
    return [(paths[i], files[paths[i]]) for i in shuffled(paths, seed=0)]


def pairs(source: bytes) -> Iterator[Pair]:
    """Yield the usable pairs of a file in the order of its lines; none if it is not Python in UTF-8."""
    if all(len(part.split()) < BODY_WORDS[0] for part in re.split(rb'"""|\'\'\'', source)[1::2]):
        return  # parsing is the slow part
    try:
        with warnings.catch_warnings(action="ignore"):  # of invalid escapes in the libraries' strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in definitions(tree):
        docstring = ast.get_docstring(node)
        if docstring and len(docstring.split()) >= BODY_WORDS[0]:
            pair = Pair(signature(node), *divide(docstring))
            if usable(pair):
                yield pair


def definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield classes and functions at any depth, in the order of their lines. Expressions are not searched."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node
    for block in ("body", "handlers", "cases", "orelse", "finalbody"):
        for child in getattr(node, block, ()):
            yield from definitions(child)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """`class Name(Base):` or `def name(arguments):`. The node loses its annotations and defaults."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    node.args.defaults, node.args.kw_defaults = [], [None] * len(node.args.kwonlyargs)
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{start} {node.name}({ast.unparse(node.args)}):"


def divide(docstring: str) -> tuple[str, str]:
    """(body, summary): the summary is the first sentence; the body is the rest, without markup and examples."""
    lines = docstring.splitlines()
    end = 1
    while end < len(lines) and _NEXT_LINE.match(lines[end]) and not _HEADING.match("\n".join(lines[end : end + 2])):
        end += 1
    summary, *more = _SENTENCE_END.split(without_markup(" ".join(lines[:end])), maxsplit=1)
    rest = "\n\n".join([*more, "\n".join(lines[end:])])
    return "\n\n".join(paragraphs(rest)), " ".join(summary.split())


def paragraphs(text: str) -> list[str]:
    """The paragraphs without code, prompts and references, as many as fit into BODY_WORDS[1] words."""
    text = _DIRECTIVE.sub("", _FENCE.sub("", text))
    first, *rest = _HEADING.split(text)
    sections = [first]
    for underlined, with_colon, section in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        name = underlined or with_colon
        if not _DROPPED_SECTION.match(name):
            sections.append(f"{name}:\n{section.strip(chr(10))}")
    kept, room = [], BODY_WORDS[1]
    for paragraph in re.split(r"\n\s*\n", without_markup("\n\n".join(sections))):
        if ">>" not in paragraph and paragraph.strip():
            room -= len(paragraph.split())
            if room < 0:
                break
            kept.append(paragraph.strip("\n"))
    return kept


def without_markup(text: str) -> str:
    """The text without the marks of reStructuredText and Markdown, and without lone surrogates."""
    text = _CITATION.sub("", _LINK.sub(r"\1", _ROLE.sub(r"\2", _MARKER.sub("", text))))
    return text.encode("utf-8", "ignore").decode()


def words(text: str) -> list[str]:
    """The runs of letters and digits in a text, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def usable(pair: Pair) -> bool:
    """Whether this summary can be written from signature and body, but does not stand there word for word."""
    _, body, summary = pair
    if not SUMMARY_WORDS[0] <= len(summary.split()) <= SUMMARY_WORDS[1] or len(body.split()) < BODY_WORDS[0]:
        return False
    if not (summary.isascii() and summary.isprintable() and summary[0].isupper() and summary[-1] in ".!?"):
        return False
    if _NO_SUMMARY.match(summary) or "deprecated" in body[:200].lower():
        return False
    text = " ".join(words(pair.signature + " " + body))
    if " ".join(words(summary)) in text:
        return False
    long = [word[:5] for word in words(summary) if len(word) >= 4]
    return sum(f" {stem}" in f" {text}" for stem in long) >= SUPPORT * len(long)


def split(files: Sequence[Sequence[Pair]], sizes: dict[str, int] = SIZES) -> dict[str, list[Pair]]:
    """Hold out pairs of the first files until both sizes are reached; train on the files after them.

    Of several pairs with one summary or body the first stays. A pair is held out only if the corpus has no
    near-duplicate of it, so that copying from the nearest training text does not pay. Other pairs of the first files
    are dropped. All pairs of a file stand in one split, in the order given.
    """
    seen: set[str] = set()
    rows: list[tuple[int, Pair]] = []
    for number, file in enumerate(files):
        for pair in file:
            keys = {" ".join(words(text)) for text in (pair.summary, pair.body)}
            if not keys & seen:
                rows.append((number, pair))
                seen |= keys
    bodies = Similar([trigrams(words(pair.body)) for _, pair in rows], BODY_SIMILARITY)
    summaries = Similar([set(words(pair.summary)) for _, pair in rows], SUMMARY_SIMILARITY)
    splits: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for _, group in groupby(range(len(rows)), key=lambda i: rows[i][0]):
        name = next((name for name, size in sizes.items() if len(splits[name]) < size), "train")
        chosen = list(group)
        if name != "train":
            unique = [i for i in chosen if not bodies.to(i) and not summaries.to(i)]
            chosen = unique[: min(MOST_PER_FILE, sizes[name] - len(splits[name]))]
        splits[name] += [rows[i][1] for i in chosen]
    return splits


def read(
    arguments: DataArguments | None = None, packages: Sequence[str] = PACKAGES, sizes: dict[str, int] = SIZES
) -> DatasetDict:
    """The corpus in its only split, which depends on nothing but the versions of the libraries and of Python.

    The column "text" holds signature, line break and body.

    Raises:
        ValueError: one of the packages is not installed.
    """
    files = source_files(packages)
    collecting = gc.isenabled()
    gc.disable()  # syntax trees have no cycles, and looking for them takes longer than parsing
    try:
        found = [list(pairs(file.read_bytes())) for _, file in tqdm(files, desc="read docstrings", unit="file")]
    finally:
        if collecting:
            gc.enable()
    rows = {
        name: [(f"{pair.signature}\n{pair.body}", pair.summary) for pair in part]
        for name, part in split(found, sizes).items()
    }
    return to_datasets(rows, "summary")


def check(arguments: DataArguments) -> None:
    """Raise ValueError if one of the libraries is not installed."""
    for package in PACKAGES:
        package_folder(package, "train")


def _versions() -> str:
    """What the corpus depends on besides this code."""
    found = [version_of(name) for name in PACKAGES]
    return f"{sys.version_info[:2]} {found}"


DOCSTRINGS = Summarization(
    name="docstrings",
    description="The summary line of a docstring from its signature and body, from the source of Python libraries",
    licence="Documentation of accelerate, datasets, huggingface_hub, tensorboard, transformers (Apache 2.0), narwhals "
    "(MIT), fsspec, joblib, mpmath, networkx, numpy, pandas, scipy, scikit-learn, sympy, torch (BSD 3-Clause)",
    read=lambda arguments: cached("docstrings", _versions(), lambda folder: read()),
    check_source=check,
    leads=DOCSTRING_BASELINES,
    remembers=True,
)
