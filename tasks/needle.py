"""Needle: one or two sentences of a news article, at a random place in a long text about something else.

The class is the article's topic. So a classifier must find the sentences, and the mean of all tokens drowns them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from shtopk.tasks import bbc, filler
from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.cache import cached
from shtopk.tasks.packages import package_folder, version_of
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise
from shtopk.tasks.task import Classification

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

TOKENS = 2000  # wordpieces of a document
EVIDENCE = (44, 76)  # wordpieces of the hidden sentences by `count_pieces`; about 40 to 70 by MiniLM's tokenizer
SIZES = {"train": 900, "validation": 150, "test": 300}  # documents
FILES = {"train": (0.0, 0.66), "validation": (0.66, 0.78), "test": (0.78, 1.0)}  # of the libraries, by path

# Wordpieces without a vocabulary: runs of up to seven letters or three digits, and single marks. Over a document this
# agrees with MiniLM's tokenizer to about 3 %, in a tenth of the time; of news alone it counts 7 % too many.
_PIECE = re.compile(r"[^\W\d_]{1,7}|\d{1,3}|[^\w\s]|_")


def count_pieces(text: str) -> int:
    """About how many wordpieces a text has."""
    return len(_PIECE.findall(text))


def generate(tokens: int = TOKENS, sizes: dict[str, int] = SIZES, seed: int = 0) -> DatasetDict:
    """Make the documents, which depend on nothing but the arguments and the versions of the libraries.

    An article stays in its BBC split, a library file in one split. Passages and articles are used again (perhaps with
    other sentences) only when a split has run out of them. The hidden sentences are text[evidence_start:evidence_end];
    both columns stand beside "text" and "label".

    Args:
        tokens: about how long a document is, in wordpieces; >= 200.
        sizes: {split: documents}.
        seed: of everything that is drawn.
    """
    if tokens < 200:
        raise ValueError(f"expected needle_tokens >= 200, got {tokens}")
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=bbc.LABELS),
            "evidence_start": Value("int64"),
            "evidence_end": Value("int64"),
        }
    )
    articles = bbc.split_articles()
    used: set[str] = set()
    data = {}
    for name in FILES:
        passages = _unused(*FILES[name], used)
        rows = []
        for i in range(sizes[name]):
            article = articles[name][i % len(articles[name])]
            # Seeded by a string and asked for random() alone: the part of Random that Python promises to keep.
            rng = random.Random(f"{seed} {name} {i}")
            rows.append(_document(article, passages, tokens, rng))
        data[name] = Dataset.from_list(rows, features)
    return DatasetDict(data)


def _document(article: bbc.Article, passages: Iterator[list[str]], tokens: int, rng: random.Random) -> dict:
    evidence = _evidence(article.text, rng)
    room = tokens - 2 - count_pieces(evidence)  # for [CLS] and [SEP]
    paragraphs: list[str] = []
    ends = [0]  # pieces up to and including each paragraph
    while ends[-1] < room:
        for paragraph in next(passages):
            pieces = list(_PIECE.finditer(paragraph))
            if len(pieces) > room - ends[-1]:  # the last one is cut at a word
                cut = pieces[room - ends[-1]].start()
                paragraph = re.sub(r"[^\W_]+\Z", "", paragraph[:cut])
                pieces = pieces[: room - ends[-1]]
            if pieces and paragraph.strip():
                paragraphs.append(paragraph.rstrip())
                ends.append(ends[-1] + len(pieces))
            if ends[-1] >= room:
                break
    wanted = rng.random() * room
    place = min(range(len(ends)), key=lambda i: abs(ends[i] - wanted))
    before = "".join(f"{paragraph}\n\n" for paragraph in paragraphs[:place])
    after = "".join(f"\n\n{paragraph}" for paragraph in paragraphs[place:])
    return {
        "text": before + evidence + after,
        "label": article.label,
        "evidence_start": len(before),
        "evidence_end": len(before) + len(evidence),
    }


def _evidence(text: str, rng: random.Random) -> str:
    """One sentence, or two adjacent ones, of the wanted length; if there is none, the closest in length."""
    _, _, body = text.partition("\n")  # without the headline
    parts = list(sentences(body)) or [normalise(text)]
    choices = parts + [f"{a} {b}" for a, b in pairwise(parts)]
    low, high = EVIDENCE
    fitting = [choice for choice in choices if low <= count_pieces(choice) <= high]
    if not fitting:
        return min(choices, key=lambda choice: abs(count_pieces(choice) - (low + high) / 2))
    return fitting[int(rng.random() * len(fitting))]


def _unused(low: float, high: float, used: set[str]) -> Iterator[list[str]]:
    """Yield passages of the files in [low, high) that are not in used, and all again once they have run out."""
    passages: list[list[str]] = []
    for passage in filler.passages(low, high):
        key = normalise(" ".join(passage))
        if key not in used:
            used.add(key)
            passages.append(passage)
            yield passage
    if not passages:
        raise ValueError(f"expected documented source files in {', '.join(filler.PACKAGES)}, found none")
    while True:
        yield from passages


def check(arguments: DataArguments) -> None:
    """Raise ValueError if the articles or the libraries are not installed."""
    bbc.folder()
    for package in filler.PACKAGES:
        package_folder(package, "train")
    if arguments.needle_tokens < 200:
        raise ValueError(f"expected needle_tokens >= 200, got {arguments.needle_tokens}")


def read(arguments: DataArguments) -> DatasetDict:
    """The documents that the arguments ask for."""
    tokens, seed = arguments.needle_tokens, arguments.data_seed
    versions = [version_of(name) for name in filler.PACKAGES]
    facts = f"{tokens} {seed} {versions} {bbc.facts()}"
    return cached("needle", facts, lambda work: generate(tokens, seed=seed))


NEEDLE = Classification(
    name="needle",
    description="One or two sentences of a BBC News article hidden in library documentation; the class is its topic",
    licence="Articles: the BBC's, for research. Documentation: numpy, pandas, scipy, scikit-learn, BSD 3-Clause",
    read=read,
    check_source=check,
)
