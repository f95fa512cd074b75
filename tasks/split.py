"""Splits that are the same on every machine: rows are ordered by hash, not by file or random generator."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

SPLITS = ("train", "validation", "test")
SHARES = {"test": 0.2, "validation": 0.1}  # of those that are drawn, unless a task says otherwise


def normalise(text: str) -> str:
    """The text with every run of whitespace as one space. Texts that differ in nothing else count as equal."""
    return " ".join(text.split())


def digest(text: str) -> str:
    """The sha256 in hexadecimal; it takes lone surrogates, too, which UTF-8 cannot hold."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests(keys: Iterable[str], seed: int) -> np.ndarray:
    """[n, 4] the SHA-256 of each key with the seed, as four numbers in the order of its bytes."""
    found = bytearray()
    for key in keys:
        found += hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return np.frombuffer(found, dtype=">u8").reshape(-1, 4)


def _order(found: np.ndarray) -> np.ndarray:
    """[n] the indices of digests in their order; equal ones stay as they are."""
    return np.lexsort(found.T[::-1])


def shuffled(keys: Iterable[str], seed: int) -> list[int]:
    """The indices of the keys in an order that depends on nothing but the keys and the seed."""
    return _order(digests(keys, seed)).tolist()


def evenly(order: Sequence[int], labels: Sequence[Hashable]) -> list[int]:
    """The same indices so that however many are taken from the front, each label has about its share of them.

    Example:
        >>> evenly([2, 3, 4, 5, 0, 1], "aabbbb")
        [2, 0, 3, 4, 1, 5]
    """
    counts, met, places = Counter(labels), Counter[Hashable](), []
    for i in order:
        met[labels[i]] += 1
        places.append((met[labels[i]] - 0.5) / counts[labels[i]])  # of its own label, from 0 to 1
    return [order[place] for place in np.argsort(places, kind="stable")]


def stratified_split(
    labels: Sequence[Hashable],
    keys: Iterable[str],
    shares: dict[str, float],
    *,
    rest: str = "train",
    seed: int = 0,
) -> dict[str, list[int]]:
    """Split rows so that every class has the same share in every split.

    Rows with the same key go to the same split. Of the n rows of a class, a split with share s gets round(n * s), or
    fewer if rows that belong together do not fit. `rest` gets all others. The keys are read once and not held.

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
    found = digests(keys, seed)
    order = _order(found)
    changes = (found[order[1:]] != found[order[:-1]]).any(axis=1).nonzero()[0] + 1  # where a group of equal keys ends
    totals = Counter(labels)
    room = {name: {label: int(n * share + 0.5) for label, n in totals.items()} for name, share in shares.items()}
    splits: dict[str, list[int]] = {name: [] for name in (*shares, rest)}
    rows = order.tolist()
    for start, end in pairwise([0, *changes.tolist(), len(rows)]):
        wanted = Counter(labels[i] for i in rows[start:end])
        fitting = (name for name in shares if all(room[name][label] >= n for label, n in wanted.items()))
        name = next(fitting, rest)
        splits[name] += rows[start:end]
        for label, n in wanted.items():
            if name != rest:
                room[name][label] -= n
    return splits
