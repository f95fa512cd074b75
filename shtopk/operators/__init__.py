"""The operators that `TopKPooling` can choose by, a row for each in `OPERATORS`.

To add one, write its function and give it a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from shtopk.operators.hard import hard_topk
from shtopk.operators.iterative import iterative_topk
from shtopk.operators.select_and_merge import select_and_merge_topk
from shtopk.operators.successive_halving import successive_halving_topk
from shtopk.topk import TopK

__all__ = ["OPERATORS", "Operator", "hard_topk", "iterative_topk", "select_and_merge_topk", "successive_halving_topk"]


class Operator(NamedTuple):
    """One way to choose k of n tokens, with the temperatures that suit it.

    Attributes:
        topk: f(values, scores, k, *, mask, temperature) -> TopK.
        temperature: > 0, the default at the end of training and afterwards.
        initial_temperature: > 0, the default at the start of training; None: the same temperature throughout.
        eval_operator: the name of the one that pools in eval mode by default; None: this one.
        teaches: whether the scores get a gradient from the pooled vectors.
    """

    topk: Callable[..., TopK]
    temperature: float
    initial_temperature: float | None = None
    eval_operator: str | None = None
    teaches: bool = True


OPERATORS: dict[str, Operator] = {
    "successive_halving": Operator(successive_halving_topk, 1.0, eval_operator="select_and_merge"),
    "successive_halving_relative": Operator(partial(successive_halving_topk, boost="relative"), 1 / 16, 2.0),
    "select_and_merge": Operator(select_and_merge_topk, 1.0),
    "iterative": Operator(iterative_topk, 1.0),
    "hard": Operator(partial(hard_topk, gradient="none"), 1.0, teaches=False),
    "hard_gated": Operator(partial(hard_topk, gradient="gate"), 1.0),
    "hard_straight_through": Operator(partial(hard_topk, gradient="straight_through"), 1.0),
}
"""The operators by name, with their default temperatures.

Those of successive halving and hard top-k are from the benchmarks (docs/benchmarks.md); "select_and_merge" and, as
published, "iterative" have 1.

Temperatures are in units of the scores; of their square for "iterative", of their spread for
"successive_halving_relative". "hard" has no use for one.
"""
