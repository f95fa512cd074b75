"""The rule of a tournament: how the two candidates of a pair are weighed against each other."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

Boost = Literal["relative", "softmax", "power"]
BOOSTS = get_args(Boost)


class Rule(NamedTuple):
    """A boost in the form that backends need.

    Attributes:
        relative: True: the temperature is in units of the scores' spread at the selection boundary. False: of the
            scores.
        log_base: 0 to compare the scores themselves; else powers of a base are compared, and this is its logarithm.
    """

    relative: bool
    log_base: float

    @classmethod
    def of(cls, boost: Boost, base: float) -> Rule:
        """The rule of a boost; `successive_halving_topk` explains both arguments.

        Raises:
            ValueError: an unknown boost, or a base <= 1.
        """
        if boost not in BOOSTS:
            raise ValueError(f"expected boost to be one of {', '.join(BOOSTS)}; got {boost!r}")
        if not base > 1:
            raise ValueError(f"expected base > 1, got {base!r}")
        return cls(boost == "relative", math.log(base) if boost == "power" else 0.0)
