"""Pairs: which of two texts is the longer one? Their words are noise, so a model must know where the second begins."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.cache import cached
from shtopk.tasks.task import Classification

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

LABELS = ["first", "second"]
SIZES = {"train": 2000, "validation": 200, "test": 300}  # pairs
WORDS, SHORTER = 12, 3  # of both texts together, and of the shorter one
NOISE = "abcdefghijkl"


def generate(sizes: dict[str, int] = SIZES, seed: int = 0) -> DatasetDict:
    """Make the pairs, which depend on nothing but the arguments.

    Every class has half of each split. The best accuracy is 1; that of a model that sees all words as one text is 0.5.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features(text=Value("string"), text_pair=Value("string"), label=ClassLabel(names=LABELS))
    rng = random.Random(f"pairs {seed}")
    return DatasetDict({
        name: Dataset.from_list([_pair(i % 2, rng) for i in range(size)], features) for name, size in sizes.items()
    })  # fmt: skip


def _pair(label: int, rng: random.Random) -> dict:
    words = [NOISE[int(rng.random() * len(NOISE))] for _ in range(WORDS)]
    end = SHORTER if label else WORDS - SHORTER
    return {"text": " ".join(words[:end]), "text_pair": " ".join(words[end:]), "label": label}


def read(arguments: DataArguments) -> DatasetDict:
    return cached("pairs", str(arguments.data_seed), lambda folder: generate(seed=arguments.data_seed))


PAIRS = Classification(
    name="pairs",
    description="Two texts of random letters; the class says which one is longer",
    licence="Made up; nobody's",
    read=read,
    check_source=lambda arguments: None,
)
