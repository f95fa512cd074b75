"""How well queries find their documents, from the rank at which each query has its right document. There is one."""

from collections.abc import Callable, Iterable

import numpy as np

OF_A_RANK: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # metric -> ranks [Q], 1 is first -> its terms [Q]
    "recall@1": lambda ranks: (ranks <= 1).astype(float),
    "recall@10": lambda ranks: (ranks <= 10).astype(float),
    "mrr": lambda ranks: 1 / ranks,
    "ndcg@10": lambda ranks: (ranks <= 10) / np.log2(1 + ranks),  # the ideal gain is 1: one document is relevant
}


def metrics(ranks: Iterable[int]) -> dict[str, float]:
    """The mean of each metric over queries.

    Args:
        ranks: of the right document of each query, >= 1.

    Example:
        >>> metrics([1, 3])
        {'recall@1': 0.5, 'recall@10': 1.0, 'mrr': 0.6666666666666666, 'ndcg@10': 0.75}
    """
    ranks = np.asarray(list(ranks))
    return {name: float(terms(ranks).mean()) for name, terms in OF_A_RANK.items()}


def to_text(numbers: Iterable[int]) -> str:
    """Whole numbers on one line, for JSON, which would give each a line of its own."""
    return " ".join(map(str, map(int, numbers)))


def from_text(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=np.int64)
