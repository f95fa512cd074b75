"""Near-duplicates: find the sets that are similar to a given one."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet


def trigrams(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Every three words in a row. If there are fewer words, all of them as one tuple."""
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()


def jaccard(a: AbstractSet, b: AbstractSet) -> float:
    """|a and b| / |a or b|, in [0, 1]; 0 for two empty sets."""
    both = len(a & b)
    return both / max(1, len(a) + len(b) - both)


class Similar:
    """An inverted index that finds all sets whose Jaccard similarity to a given one reaches a threshold.

    It is exact, but does not compare all pairs. A set that reaches the threshold shares at least threshold * n of the
    n items. So it holds at least one of the rarest n - ceil(threshold * n) + 1 items, and only such sets are compared.

    Args:
        sets: what to search; an empty set is similar to none.
        threshold: in (0, 1].
    """

    def __init__(self, sets: Sequence[AbstractSet[Hashable]], threshold: float):
        self.sets, self.threshold = sets, threshold
        self.holders: dict[Hashable, list[int]] = defaultdict(list)
        for i, items in enumerate(sets):
            for item in items:
                self.holders[item].append(i)

    def to(self, i: int) -> set[int]:
        """The indices of the other sets that are similar to set i."""
        items = self.sets[i]
        # Rounded down: a product with an error in its last digit must not hide a set that just reaches the threshold.
        rarest = sorted(items, key=lambda item: len(self.holders[item]))[
            : len(items) - int(self.threshold * len(items)) + 1
        ]
        candidates = {j for item in rarest for j in self.holders[item]} - {i}
        return {j for j in candidates if jaccard(items, self.sets[j]) >= self.threshold}
