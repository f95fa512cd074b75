"""Is one way better than another, or was it the documents? Both answered the same queries, so differences are paired.

The results of a way are those of its runs, one a seed, each with an item for each query (its reciprocal rank, or 1 for
a hit) or document (1 for a right answer). Runs are averaged first, item by item. Queries of one document are not
independent, so documents are what is counted and drawn: a mean over queries is sum(D_i) / sum(n_i) over documents i,
each with its sum D_i over n_i queries.

The standard error of a difference has two parts, and both can be had alone:

- `documents`: other documents of the same kind, the same trained models. Paired: of two ways that fail on the same
  documents it is small, however hard these are. It is that of a ratio of means (for equal n_i, of a mean).
- `seeds`: another training. Each way's variance over seeds, over their number; of two or three seeds it is a rough
  estimate. A way with one run has none, as is right where nothing is drawn or trained. Where something is, its error
  is too small.

`interval` is a bootstrap over documents and leaves seeds out.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

RESAMPLES = 2000
Row = TypeVar("Row", bound=Hashable)
Runs = Sequence[Sequence[float] | np.ndarray]  # [seeds, items]


class Difference(NamedTuple):
    """A way's mean less another's, and the standard error of that by documents and by seeds."""

    mean: float
    documents: float
    seeds: float

    @property
    def error(self) -> float:
        """The standard error with both parts."""
        return math.hypot(self.documents, self.seeds)

    @property
    def is_best(self) -> bool:
        """Of a difference to the best: whether it is within one standard error."""
        return -self.mean <= self.error


def difference(way: Runs, other: Runs, owners: Sequence[int] | np.ndarray | None = None) -> Difference:
    """Compare two ways.

    Args:
        way, other: [seeds, items] their results, of the same items in the same order; the numbers of seeds may differ.
        owners: [items] the number of the document that an item belongs to; None: each is a document of its own.

    Raises:
        ValueError: results of different items.

    Example:
        >>> difference([[1, 1, 0, 1]], [[1, 0, 0, 0]]).mean
        0.5
    """
    sums, counts = _by_document(way, other, owners)
    mean, documents = sums.sum() / counts.sum(), len(counts)
    rest = sums - mean * counts
    error = math.sqrt(documents / max(1, documents - 1) * (rest**2).sum()) / counts.sum()
    of_seeds = [np.asarray(runs, dtype=float).mean(1) for runs in (way, other)]
    seeds = math.sqrt(sum(means.var(ddof=1) / len(means) for means in of_seeds if len(means) > 1))
    return Difference(float(mean), float(error), seeds)


def interval(
    way: Runs, other: Runs, owners: Sequence[int] | np.ndarray | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Between what the difference lies, by a bootstrap that draws documents anew with all that belongs to them.

    Args: as of `difference`, and the confidence, in (0, 1).
    """
    sums, counts = _by_document(way, other, owners)
    if np.ptp(sums / counts) == 0:  # the same for every document: nothing to draw
        return (float(sums[0] / counts[0]),) * 2
    found = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        batch=500,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def less_best(
    column: Mapping[Row, Runs], owners: Sequence[int] | np.ndarray | None = None, others: Sequence[float] = ()
) -> dict[Row, Difference]:
    """{row: its difference to the best row} of a column of a table; the best row's is 0.

    Args:
        column: {row: [seeds, items] its results}; more is better.
        owners: as of `difference`.
        others: the means of rows whose results were not kept. If one is better than all of the column, how far these
            are from the best is not known, and the answer is empty.
    """
    if not column:
        return {}
    means = {row: np.mean([np.mean(run) for run in runs]) for row, runs in column.items()}
    best = max(means, key=lambda row: means[row])
    if any(mean > means[best] for mean in others):
        return {}
    others_less = {row: difference(runs, column[best], owners) for row, runs in column.items() if row != best}
    return {row: others_less.get(row, Difference(0.0, 0.0, 0.0)) for row in column}


def best_rows(
    column: Mapping[Row, Runs], owners: Sequence[int] | np.ndarray | None = None, others: Sequence[float] = ()
) -> set[Row]:
    """The rows of a column that are best, or within one standard error of their difference to the best.

    Args: as of `less_best`.

    Example:
        >>> right = {"a": [[1, 1, 1, 0, 1, 1, 0, 1]], "b": [[1, 1, 1, 1, 0, 1, 0, 1]], "c": [[1, 0, 0, 0, 0, 1, 0, 0]]}
        >>> sorted(best_rows(right))
        ['a', 'b']
    """
    return {row for row, less in less_best(column, owners, others).items() if less.is_best}


def _by_document(way: Runs, other: Runs, owners: Sequence[int] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """[documents] the sums of the differences of each document's items, averaged over seeds, and how many they are."""
    means = [np.asarray(runs, dtype=float).mean(0) for runs in (way, other)]
    items = len(means[0]) if owners is None else len(owners)
    if any(len(mean) != items for mean in means):
        raise ValueError(
            f"expected results of the same {items} items, got {' and '.join(str(len(mean)) for mean in means)}; "
            "measure both on the same documents"
        )
    _, document = np.unique(np.arange(items) if owners is None else np.asarray(owners), return_inverse=True)
    return np.bincount(document, weights=means[0] - means[1]), np.bincount(document).astype(float)
