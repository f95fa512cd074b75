"""The arguments of a call, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def by_name(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by the names that its signature has.

    Without `zip`, which torch.compile of torch 2.9 does not trace here.

    >>> by_name(["hidden_states", "attention_mask"], [1], {"attention_mask": 2})
    {'hidden_states': 1, 'attention_mask': 2}
    """
    return {names[place]: args[place] for place in range(min(len(names), len(args)))} | dict(kwargs)


def as_called(names: Sequence[str], args: Sequence[Any], given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call as it had them: as many by their place, the others by name. The reverse of `by_name`.

    >>> as_called(["hidden_states", "attention_mask"], [1], {"hidden_states": 3, "attention_mask": 2})
    ((3,), {'attention_mask': 2})
    """
    return tuple(given.pop(name) for name in names[: len(args)]), given
