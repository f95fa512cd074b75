"""95 % confidence intervals of figures that are no means over documents, by the percentile bootstrap."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000


def intervals(
    figures: Callable[[np.ndarray], dict[str, float]], documents: int, seed: int = 0
) -> dict[str, list[float]]:
    """The interval [low, high] of each figure, over documents that are drawn with replacement.

    Args:
        figures: from the numbers of the documents drawn, [documents], to figures by name.
        documents: how many there are, >= 1.
        seed: of the draws.

    Example:
        >>> x = np.array([1.0, 1.0, 1.0])
        >>> intervals(lambda drawn: {"mean": x[drawn].mean()}, 3)
        {'mean': [1.0, 1.0]}
    """
    generator = np.random.default_rng(seed)
    drawn = [figures(generator.integers(documents, size=documents)) for _ in range(RESAMPLES)]
    bounds = {name: np.quantile([row[name] for row in drawn], [0.025, 0.975]) for name in drawn[0]}
    return {name: pair.tolist() for name, pair in bounds.items()}
