"""Splits that are the same on every machine: rows are ordered by hash, not by file or random generator."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")
SHARES = {"test": 0.2, "validation": 0.1}  # of those that are drawn, unless a task says otherwise


def normalise(text: str) -> str:
    """The text with every run of whitespace as one space. Texts that differ in nothing else count as equal."""
    return " ".join(text.split())


def digest(text: str) -> str:
    """The sha256 in hexadecimal; it takes lone surrogates, too, which UTF-8 cannot hold."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def shuffled(keys: Sequence[str], seed: int) -> list[int]:
    """The indices of the keys in an order that depends on nothing but the keys and the seed."""
    return sorted(range(len(keys)), key=lambda i: (digest(f"{seed}\0{keys[i]}"), i))


def stratified_split(
    labels: Sequence[str], keys: Sequence[str], shares: dict[str, float], *, rest: str = "train", seed: int = 0
) -> dict[str, list[int]]:
    """Split rows so that every class has the same share in every split.

    Rows with the same key go to the same split. Of the n rows of a class, a split with share s gets round(n * s), or
    fewer if rows that belong together do not fit. `rest` gets all others.

    Args:
        labels: one for each row.
        keys: one for each row; with the seed, they decide the order of a split's rows.
        shares: {split: share in (0, 1)}, at most 1 together.
        rest: the split that gets all other rows.
        seed: of the order.

    Example:
        >>> stratified_split(["a"] * 4 + ["b"] * 4, list("12345678"), {"test": 0.25})
        {'test': [7, 0], 'train': [3, 4, 2, 1, 6, 5]}
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i in shuffled(keys, seed):
        groups[keys[i]].append(i)
    totals = Counter(labels)
    room = {name: {label: int(n * share + 0.5) for label, n in totals.items()} for name, share in shares.items()}
    splits: dict[str, list[int]] = {name: [] for name in (*shares, rest)}
    for rows in groups.values():
        wanted = Counter(labels[i] for i in rows)
        fitting = (name for name in shares if all(room[name][label] >= n for label, n in wanted.items()))
        name = next(fitting, rest)
        splits[name] += rows
        for label, n in wanted.items():
            if name != rest:
                room[name][label] -= n
    return splits
