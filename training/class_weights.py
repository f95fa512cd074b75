"""The weights of classes as a field of a command line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

BALANCED = "balanced"


def read_weights(text: str) -> dict[str, float]:
    """Weights as {class: weight}, from `class:weight` with commas between, or from an object of JSON.

    Raises:
        ValueError: it is neither, or a weight is no number > 0.

    Example:
        >>> read_weights("spam:5,ham:1"), read_weights('{"a, b": 2}')
        ({'spam': 5.0, 'ham': 1.0}, {'a, b': 2.0})
    """
    problem = ValueError(
        f"expected class_weights to be {BALANCED}, or like spam:5,ham:1 (class:weight, each weight > 0); got {text!r}"
    )
    if text.lstrip().startswith("{"):
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise problem from None
        pairs = list(found.items())
    else:
        pairs = [one.rpartition(":")[::2] for one in text.split(",")]
    weights: dict[str, float] = {}
    for name, value in pairs:
        name = str(name).strip()
        try:
            weight = float(value)
        except (TypeError, ValueError):
            raise problem from None
        if not name or name in weights or not 0 < weight < math.inf:
            raise problem
        weights[name] = weight
    return weights


def as_word(weights: Mapping[Any, Any]) -> str:
    """A mapping of YAML as a word that `read_weights` reads."""
    return json.dumps({str(name): value for name, value in weights.items()}, ensure_ascii=False, default=str)
