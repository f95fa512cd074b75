"""How the two candidates of a pair are weighed against each other."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

Boost = Literal["relative", "softmax", "power"]
BOOSTS = get_args(Boost)


class Rule(NamedTuple):
    """What a backend needs to know of a boost.

    Attributes:
        relative: the temperature is in units of the scores' spread at the selection boundary, else of the scores.
        log_base: scores are compared as powers of the base with this logarithm; 0: as they are.
    """

    relative: bool
    log_base: float

    @classmethod
    def of(cls, boost: Boost, base: float) -> Rule:
        """The rule of a boost, see `successive_halving_topk`; ValueError for an unknown one, or a base <= 1."""
        if boost not in BOOSTS:
            raise ValueError(f"expected boost to be one of {', '.join(BOOSTS)}; got {boost!r}")
        if not base > 1:
            raise ValueError(f"expected base > 1, got {base!r}")
        return cls(boost == "relative", math.log(base) if boost == "power" else 0.0)
