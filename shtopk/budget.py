"""A k drawn for each update, so that one training serves every number of vectors."""

from __future__ import annotations

import random
from collections.abc import Sequence

from torch import nn

from shtopk.candidates import whole
from shtopk.options import PoolingOptions
from shtopk.pooling import poolings


def draw_k(model: nn.Module, k_range: Sequence[int], update: int, seed: int = 0) -> int:
    """Draw the k of an update for the last `TopKPooling` inside a model, so that it learns to serve a range of them.

    Draws are log-uniform: k has the probability `log((k + 1) / k) / log((high + 1) / low)`. From 4 to 8 vectors much
    changes, and from 104 to 108 little. Call it before each update, as `anneal`. The k drawn holds in training mode
    until the next call, wherever the pooling is called without a k; eval mode uses the pooling's own k. Draws depend
    on seed and update alone: every process gets the same, and so does a training that is resumed.

    The poolings before the last one, between layers, keep their k. A compiled model is compiled anew for each k,
    unless the k is passed to the pooling's `forward`.

    Args:
        model: a pooling, or any module with poolings inside.
        k_range: (low, high), whole numbers >= 1, both drawn too; low is above the number of protected tokens.
        update: how many updates have been done.
        seed: of all draws of a training.

    Returns:
        The k drawn.

    Raises:
        ValueError: an impossible range, or a model without a `TopKPooling`.

    Example:
        >>> from shtopk import TopKPooling
        >>> pooling = TopKPooling(hidden_size=8, k=32).train()
        >>> [draw_k(pooling, (4, 128), update) for update in range(5)]
        [13, 6, 7, 53, 41]
        >>> pooling.current_k, pooling.eval().current_k
        (41, 32)
    """
    found = poolings(model)
    if not found:
        raise ValueError(f"expected a model with a TopKPooling inside, found none in {type(model).__name__}")
    k_range = checked_range(k_range, found[-1].options)
    found[-1].training_k = log_uniform(k_range, random.Random(f"{seed} {update}").random())
    return found[-1].training_k


def log_uniform(k_range: tuple[int, int], place: float) -> int:
    """The k at a place in [0, 1) of the range; places that are uniform give a k that is log-uniform."""
    low, high = k_range
    return min(high, int(low * ((high + 1) / low) ** place))


def checked_range(k_range: Sequence[int], options: PoolingOptions) -> tuple[int, int]:
    """(low, high) of a k to be drawn, checked.

    Raises:
        ValueError: it is no pair of whole numbers 1 <= low <= high, or low leaves no slot beside the protected tokens.
    """
    given = [whole(k) for k in k_range] if isinstance(k_range, Sequence) and not isinstance(k_range, str) else []
    two = len(given) == 2 and all(isinstance(k, int) and not isinstance(k, bool) for k in given)
    if not two or not 1 <= given[0] <= given[1]:
        raise ValueError(f"expected k_range to be two whole numbers, 1 <= low <= high, got {k_range!r}")
    if len(options.protected) >= given[0]:
        raise ValueError(
            f"expected k_range to begin above the {len(options.protected)} protected tokens, got {k_range!r}"
        )
    return given[0], given[1]
