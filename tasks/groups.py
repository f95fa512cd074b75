"""Rows that belong together: what is joined to one row is joined to all that it was joined to."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence


class Groups:
    """Disjoint sets of anything that can be ordered and hashed.

    Example:
        >>> groups = Groups()
        >>> groups.join(3, 2), groups.join(2, 1)
        (None, None)
        >>> groups.first(3), groups.first(7)
        (1, 7)
    """

    def __init__(self):
        self._parent: dict[Hashable, Hashable] = {}

    def first(self, item):
        """The smallest member of the item's group: the same for all its members."""
        path = []
        while (parent := self._parent.get(item, item)) != item:
            path.append(item)
            item = parent
        self._parent.update(dict.fromkeys(path, item))
        return item

    def join(self, one, other) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        self._parent[high] = low


def near_duplicates(texts: Sequence[str], least: float) -> list[tuple[int, int]]:
    """Pairs i < j of texts whose sets of words have |A ∩ B| / |A ∪ B| >= least, which is in (0, 1].

    Sets of that overlap share one of the rarest (1 - least) of each one's words, so only texts that do are compared.
    """
    sets = [set(re.findall(r"\w+", text.lower())) for text in texts]
    count = Counter(word for words in sets for word in words)
    index: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for j, words in enumerate(sets):
        rarest = sorted(words, key=lambda word: (count[word], word))[: len(words) - math.ceil(least * len(words)) + 1]
        for i in sorted({i for word in rarest for i in index[word]}):
            if min(len(words), len(sets[i])) < least * max(len(words), len(sets[i])):
                continue
            common = len(words & sets[i])
            if common >= least * (len(words) + len(sets[i]) - common):
                pairs.append((i, j))
        for word in rarest:
            index[word].append(j)
    return pairs
