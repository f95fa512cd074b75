"""Needle: two sentences of a news article at a random place in the documentation of Python libraries.

The label is the topic of the article, so all that matters is where the encoder looks. Documents are made here from
BBC News and from the docstrings of installed packages, without a random state of the machine: the same packages give
the same documents. News and documentation of one split never occur in another one.
"""

import ast
import importlib.util
import random
import re
from pathlib import Path

from datasets import DatasetDict, Value

from tasks import bbc
from tasks.arguments import DataArguments
from tasks.metrics import classification_metrics
from tasks.splits import as_dataset, digest
from tasks.task import Task

DOCUMENTS = {"train": 900, "validation": 150, "test": 300}
HAYSTACK = ("numpy", "scipy", "sklearn", "pandas")  # packages whose docstrings hide the sentences
EVIDENCE_WORDS = (25, 55)  # about 40 to 75 word pieces
PIECES_PER_WORD = 2.1  # of MiniLM's tokenizer, in documentation
SHORTEST_PASSAGE = 200  # characters


def passages() -> dict[str, list[str]]:
    """Docstrings by split; a source file's docstrings all go to the same one."""
    found = {"train": [], "validation": [], "test": []}
    seen = set()
    for package in HAYSTACK:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"needle hides its sentences in the documentation of {package}, which is not installed")
        root = Path(spec.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root.parent).as_posix()
            if "/tests/" in place:
                continue
            draw = int(digest(place)[:8], 16) / 2**32
            split = "test" if draw < 0.2 else "validation" if draw < 0.3 else "train"
            for text in docstrings(path):
                if text not in seen:
                    seen.add(text)
                    found[split].append(text)
    return found


def docstrings(path: Path) -> list[str]:
    """The longer docstrings of a source file, white space folded; none if it cannot be read."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    owners = (node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
    texts = (" ".join((ast.get_docstring(node) or "").split()) for node in owners)
    return [text for text in texts if len(text) >= SHORTEST_PASSAGE]


def evidence(article: str, draw: random.Random) -> str | None:
    """Two neighbouring sentences of the article, of the right length together; None if it has none."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(article.split("\n")[1:]))  # the first line is the headline
    pairs = [" ".join(pair) for pair in zip(sentences, sentences[1:], strict=False)]
    low, high = EVIDENCE_WORDS
    fitting = [pair.strip() for pair in pairs if low <= len(pair.split()) <= high]
    return draw.choice(fitting) if fitting else None


def hide(sentences: str, haystack: list[str], words: int, draw: random.Random) -> tuple[str, int]:
    """A document of about `words` words and the place (character) where the sentences begin.

    The place is drawn evenly over the words of the document, in the middle of a passage or between two.
    """
    around: list[str] = []
    while len(around) < words:
        around += draw.choice(haystack).split()
    around = around[: max(0, words - len(sentences.split()))]
    place = draw.randint(0, len(around))
    before = " ".join(around[:place])
    start = len(before) + 1 if before else 0
    return " ".join(part for part in (before, sentences, " ".join(around[place:])) if part), start


def load(arguments: DataArguments) -> DatasetDict:
    words = round(arguments.needle_tokens / PIECES_PER_WORD)
    haystacks, news = passages(), bbc.split_articles()
    names = sorted({label for _, label in news["train"]})
    splits = {}
    for split, count in DOCUMENTS.items():
        draw = random.Random(f"needle {split}")
        rows = {"text": [], "label": [], "evidence_start": [], "evidence_end": []}
        while len(rows["text"]) < count:
            article, label = draw.choice(news[split])
            sentences = evidence(article, draw)
            if sentences is None:
                continue
            text, start = hide(sentences, haystacks[split], words, draw)
            for column, value in zip(rows, (text, names.index(label), start, start + len(sentences)), strict=True):
                rows[column].append(value)
        splits[split] = rows
    return as_dataset(splits, names, {"evidence_start": Value("int32"), "evidence_end": Value("int32")})


def check(arguments: DataArguments) -> None:
    bbc.folder()
    if arguments.needle_tokens < 200:
        raise ValueError(f"expected needle_tokens >= 200, got {arguments.needle_tokens}")


NEEDLE = Task(
    name="needle",
    description="two sentences of a BBC News article hidden in the documentation of Python libraries",
    licence="the articles are the BBC's, for non-commercial research; the documentation is under the BSD licences",
    check=check,
    load=load,
    compute_metrics=classification_metrics,
)
