"""Recall: a made-up registry of names and numbers among other sentences, and at the end a question for one of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.cache import cached
from shtopk.tasks.completion import Completion

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict

SIZES = {"train": 8000, "validation": 200, "test": 500}  # prompts
FACTS, OTHERS = 8, 24  # sentences of a prompt
FIRST = ("Ada", "Bo", "Cleo", "Dario", "Edda", "Falk", "Gita", "Hugo", "Ines", "Juri", "Kaja", "Leon")
LAST = ("Amber", "Brook", "Crane", "Dale", "Elm", "Frost", "Grove", "Heath", "Isle", "Jade", "Knoll", "Lake")
PLACES = ("harbour", "library", "market", "mill", "orchard", "station", "theatre", "tower")
STATES = ("closed early", "got new windows", "opened late", "was painted", "was quiet", "was full of people")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def generate(sizes: dict[str, int] = SIZES, seed: int = 0) -> DatasetDict:
    """Make the prompts, which depend on nothing but the arguments.

    The numbers are drawn anew for each prompt, so nothing but the prompt tells them: the best share of exact matches
    is 1, and who does not look is right once in 9,000 times.
    """
    from shtopk.tasks.table import to_datasets

    rng = random.Random(f"recall {seed}")
    return to_datasets({name: [_row(rng) for _ in range(size)] for name, size in sizes.items()}, "completion")


def _row(rng: random.Random) -> tuple[str, str]:
    """(prompt, completion)"""
    names: list[str] = []
    while len(names) < FACTS:
        name = f"{_one(FIRST, rng)} {_one(LAST, rng)}"
        names += [name] if name not in names else []
    numbers = [str(1000 + int(rng.random() * 9000)) for _ in names]
    parts = [f"The number of {name} is {number}." for name, number in zip(names, numbers, strict=True)]
    parts += [f"On {_one(DAYS, rng)} the {_one(PLACES, rng)} {_one(STATES, rng)}." for _ in range(OTHERS)]
    parts = [part for _, part in sorted((rng.random(), part) for part in parts)]
    asked = int(rng.random() * FACTS)
    return f"{' '.join(parts)} What is the number of {names[asked]}? It is", f" {numbers[asked]}"


def _one(words: tuple[str, ...], rng: random.Random) -> str:
    return words[int(rng.random() * len(words))]


def read(arguments: DataArguments) -> DatasetDict:
    return cached("recall", str(arguments.data_seed), lambda folder: generate(seed=arguments.data_seed))


RECALL = Completion(
    name="recall",
    description="Made-up names and numbers among other sentences; the completion is the number that is asked for",
    licence="Made up; nobody's",
    read=read,
    check_source=lambda arguments: None,
)
