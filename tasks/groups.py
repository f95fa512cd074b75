"""Rows that belong together (union-find): joining two rows joins all that were joined to either."""

from collections.abc import Hashable


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
