"""The probability from which on a label is part of the answer, chosen for each label."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from shtopk.tasks.labels import indicators

HOLDS = 0.5  # where nothing is chosen, as in shtopk.models.answers


def best_thresholds(
    probabilities: np.ndarray | Sequence[Sequence[float]], references: Sequence[Collection[int]]
) -> list[float]:
    """For each label the threshold with the highest F1 on these documents.

    It lies in the middle between two probabilities that occur. Of equally good ones it is the one closest to 0.5. A
    label that none of the documents has keeps 0.5.

    Args:
        probabilities: [n, L] in [0, 1].
        references: for each document the numbers of its labels.

    Returns:
        L thresholds in (0, 1): a label holds where its probability is at least so high.

    Example:
        >>> best_thresholds([[0.9], [0.2], [0.1]], [[0], [0], []])
        [0.15000000000000002]
    """
    shares = np.asarray(probabilities, float)
    true = indicators(references, shares.shape[1])
    return [_best(shares[:, i], true[:, i]) for i in range(shares.shape[1])]


def _best(shares: np.ndarray, true: np.ndarray) -> float:
    if not true.any():
        return HOLDS
    order = np.argsort(-shares, kind="stable")
    sorted_shares, right = shares[order], np.cumsum(true[order])
    given = np.arange(1, len(shares) + 1)
    f1 = 2 * right / (given + true.sum())
    following = np.append(sorted_shares[1:], 0.0)
    cuts = (sorted_shares + following) / 2  # between a document that gets the label and the next one, which does not
    f1 = np.where(sorted_shares > following, f1, -1.0)  # equal probabilities cannot be told apart
    if f1.max() < 0:  # all probabilities are 0
        return HOLDS
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    # Within the gap that holds 0.5, this is the threshold: nothing speaks for another.
    if any(following[i] < HOLDS <= sorted_shares[i] for i in best):
        return HOLDS
    return float(min((cuts[i] for i in best), key=lambda cut: abs(cut - HOLDS)))
