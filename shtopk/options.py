"""The options of a pooling: one record, which the module, the configurations and the command line share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from torch import nn

from shtopk.operators import OPERATORS
from shtopk.scorers import SCORERS

Number = int | float


def _option(default: Any, help: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class PoolingOptions:
    """How a `TopKPooling` chooses, its k aside. Whatever is not given has the same default wherever options stand.

    Temperatures are filled in when a record is made; `dataclasses.replace` keeps them. The defaults come from this
    library's benchmarks (benchmarks/README.md).

    Args:
        operator: the top-k operator, a name of `shtopk.operators.OPERATORS`.
        temperature: > 0, in eval mode and at the end of training; small is hard. In units of the scores
            (`"successive_halving_relative"`: of their spread; `"iterative"`: of their square).
        initial_temperature: > 0, at the start of training. With neither temperature given, both are the operator's;
            given alone, this one falls to the operator's; left out beside a temperature, that one is constant.
        scorer: `"linear"`, `"mlp"` (one hidden layer of d / 4), or any module from token vectors [B, n, d] to scores
            [B, n] or [B, n, 1]. Two that learn nothing serve as controls: `"first"` wants the first tokens,
            `"strided"` every (n / k)-th real token.
        keep_order: pooled vectors in document order rather than by falling score.
        protected: places of tokens that are always kept, alone in their slot with weight 1; fewer than k. They are not
            scored. 0 is the first place, [CLS]'s; -1 is a row's last real token, [SEP]'s.

    Raises:
        ValueError: an unknown name, a temperature that is not > 0, a place given twice.

    Example:
        >>> PoolingOptions().temperature, PoolingOptions(operator="iterative").temperature
        (0.0625, 1.0)
    """

    operator: str = _option("successive_halving", "how tokens are chosen", choices=tuple(OPERATORS))
    temperature: Number | None = _option(
        None, "> 0, at the end of training and afterwards; small is hard; by default the operator's"
    )
    initial_temperature: Number | None = _option(
        None, "> 0, at the start of training; by default the operator's, or none where a temperature is given"
    )
    scorer: str | nn.Module = _option(
        "linear", "what scores a token; 'first' and 'strided' are controls that learn nothing", choices=tuple(SCORERS)
    )
    keep_order: bool = _option(True, "kept vectors stand in document order")
    protected: list[int] | tuple[int, ...] = _option(
        (), "places of tokens that are always kept; 0 is the first, -1 the last real one"
    )

    def __post_init__(self) -> None:
        for name, known in (("operator", OPERATORS), ("scorer", SCORERS)):
            value = getattr(self, name)
            known_name = isinstance(value, str) and value in known
            if not known_name and not (name == "scorer" and isinstance(value, nn.Module)):
                raise ValueError(f"expected {name} to be one of {', '.join(known)}; got {value!r}")
        temperatures = temperatures_of(self.operator, self.temperature, self.initial_temperature)
        for name, value in zip(("temperature", "initial_temperature"), temperatures, strict=True):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"expected {name} > 0, got {value!r}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "protected", tuple(self.protected))
        if len(set(self.protected)) != len(self.protected):
            raise ValueError(f"expected protected to be different places, got {list(self.protected)}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PoolingOptions:
        """From options by name, as 0.1.0 saved them too; ValueError for an unknown one."""
        given = without_boost(given)
        if unknown := sorted(given.keys() - set(NAMES)):
            raise ValueError(f"expected options of TopKPooling ({', '.join(NAMES)}), got {', '.join(unknown)}")
        return cls(**given)

    def check(self, k: Number) -> None:
        """Raise ValueError for a k that is neither a count nor a share, or too small for the protected tokens."""
        count = isinstance(k, int) and not isinstance(k, bool) and k >= 1
        if not count and not (isinstance(k, float) and 0 < k <= 1):
            raise ValueError(f"expected k to be a whole number >= 1 or a share in (0, 1], got {k!r}")
        if count and len(self.protected) >= k:
            raise ValueError(f"expected fewer protected tokens than k = {k}, got {len(self.protected)}; raise k")

    def temperature_at(self, progress: float) -> float:
        """In training, after a share of it in [0, 1]: from the initial temperature to the final one, geometrically."""
        assert self.temperature is not None
        if self.initial_temperature is None:
            return self.temperature
        return self.initial_temperature ** (1 - progress) * self.temperature**progress

    def to_dict(self) -> dict[str, Any]:
        """By name, as JSON can hold them; ValueError where the scorer is a module of one's own."""
        if isinstance(self.scorer, nn.Module):
            raise ValueError(f"expected a scorer that has a name ({', '.join(SCORERS)}) to be saved, got a module")
        return {name: getattr(self, name) for name in NAMES} | {"protected": list(self.protected)}


def temperatures_of(
    operator: str, temperature: Number | None, initial_temperature: Number | None
) -> tuple[Number | None, Number | None]:
    """Both temperatures, where None is the operator's own; see `PoolingOptions`."""
    if temperature is not None or operator not in OPERATORS:
        return temperature, initial_temperature
    default = OPERATORS[operator]
    return default.temperature, default.initial_temperature if initial_temperature is None else initial_temperature


def fill_temperatures(fields: Any) -> None:
    """Set the temperatures of an object with the fields of `PoolingOptions` to those of its operator, where None."""
    fields.temperature, fields.initial_temperature = temperatures_of(
        fields.operator, fields.temperature, fields.initial_temperature
    )


NAMES = tuple(field.name for field in dataclasses.fields(PoolingOptions))


def without_boost(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, in which the boost that 0.1.0 had is part of the operator's name."""
    options = dict(options)
    boost = options.pop("boost", None)
    if boost is None or options.get("operator", "successive_halving") != "successive_halving":
        return options  # the others had no use for it
    if boost not in ("softmax", "relative"):
        raise ValueError(f"a pooling has no boost {boost!r} any more; call successive_halving_topk, which has")
    return options | ({"operator": "successive_halving_relative"} if boost == "relative" else {})


def like_options(name: str, types: dict[str, Any]) -> Any:
    """A dataclass with the fields of `PoolingOptions`, to build on where options stand among other fields.

    types: of fields that have others there. A list is a field's default where its type is one.
    """
    fields, kinds = [], get_type_hints(PoolingOptions) | types
    for option in dataclasses.fields(PoolingOptions):
        kind = kinds[option.name]
        default: Any = {"default": option.default}
        if kind == list[int]:
            default = {"default_factory": lambda value=option.default: list(value)}
        fields.append((option.name, kind, dataclasses.field(**default, metadata=option.metadata)))
    return dataclasses.make_dataclass(name, fields)
