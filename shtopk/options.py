"""The options of a pooling: one record, shared by the module, the configurations and the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, get_type_hints

from torch import nn

from shtopk.candidates import whole
from shtopk.operators import OPERATORS
from shtopk.scorers import SCORERS

Number = int | float


def _option(default: Any, help: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class PoolingOptions:
    """How a `TopKPooling` chooses, without its k. Defaults are the same wherever options can be given, but for
    `protected` and `eval_operator`, which suit the model.

    They come from this library's benchmarks (docs/benchmarks.md). Making a record fills in what the operator decides,
    its temperatures and its eval_operator, and `dataclasses.replace` keeps them.

    Args:
        operator: the top-k operator that pools in training, a name in `shtopk.operators.OPERATORS`.
        eval_operator: the one that pools in eval mode. None: what suits the operator, `"select_and_merge"` for
            `"successive_halving"`, and the operator itself for all others.
        temperature: > 0, at the end of training and in eval mode; small is hard. In units of the scores; of their
            spread for `"successive_halving_relative"`, of their square for `"iterative"`. None: the operator's own.
        initial_temperature: > 0, at the start of training. None: the operator's own, if `temperature` is None too; if
            a temperature is given, that one stays constant.
        scorer: `"linear"`, `"mlp"` (one hidden layer of d / 4), or a module from token vectors [B, n, d] to scores
            [B, n] or [B, n, 1]. Two more learn nothing and serve as controls: `"first"` wants the first tokens,
            `"strided"` wants every (n / k)-th real token.
        keep_order: True: the pooled vectors stand in document order. False: protected ones first, then by
            falling score; of select and merge in the order in which leaders were chosen.
        protected: places of tokens that are always kept, each alone in a slot with weight 1, without a score. Fewer
            than k. 0 is a row's first real token, that of [CLS]; -1 is its last one, that of [SEP].

    Raises:
        ValueError: an unknown name, a temperature that is not > 0, or a place given twice.

    Example:
        >>> options = PoolingOptions()
        >>> options.operator, options.eval_operator, options.temperature
        ('successive_halving', 'select_and_merge', 1.0)
    """

    operator: str = _option("successive_halving", "how tokens are pooled in training", choices=tuple(OPERATORS))
    eval_operator: str | None = _option(
        None, "how tokens are pooled in eval mode; by default as suits the operator", choices=tuple(OPERATORS)
    )
    temperature: Number | None = _option(
        None, "> 0, at the end of training and afterwards; small is hard; by default that of the operator"
    )
    initial_temperature: Number | None = _option(
        None, "> 0, at the start of training; by default that of the operator; a temperature alone stays constant"
    )
    scorer: str | nn.Module = _option(
        "linear", "what scores a token; 'first' and 'strided' are controls that learn nothing", choices=tuple(SCORERS)
    )
    keep_order: bool = _option(True, "kept vectors stand in document order")
    protected: list[int] | tuple[int, ...] = _option(
        (), "places of real tokens that are always kept; 0 is the first, -1 the last one"
    )

    def __post_init__(self) -> None:
        fill_in(self)
        for name, known in (("operator", OPERATORS), ("eval_operator", OPERATORS), ("scorer", SCORERS)):
            value = getattr(self, name)
            known_name = isinstance(value, str) and value in known
            if not known_name and not (name == "scorer" and isinstance(value, nn.Module)):
                raise ValueError(f"expected {name} to be one of {', '.join(known)}; got {value!r}")
        for name in ("temperature", "initial_temperature"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Real):
                raise ValueError(f"expected {name} to be a number > 0, got {value!r}")
            if value is not None and not (float(value) > 0 and math.isfinite(value)):
                raise ValueError(f"expected {name} > 0, got {value!r}")
        if not isinstance(self.protected, Iterable) or not all(isinstance(place, int) for place in self.protected):
            raise ValueError(f"expected protected to be a list of whole numbers, got {self.protected!r}")
        object.__setattr__(self, "protected", tuple(self.protected))
        if len(set(self.protected)) != len(self.protected):
            raise ValueError(f"expected protected to be different places, got {list(self.protected)}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PoolingOptions:
        """A record from options by name. Those that version 0.1.0 saved are understood, too.

        Raises:
            ValueError: an unknown name, or an impossible value.
        """
        given = without_boost(given)
        if unknown := sorted(given.keys() - set(NAMES)):
            raise ValueError(f"expected options of TopKPooling ({', '.join(NAMES)}), got {', '.join(unknown)}")
        return cls(**given)

    def check(self, k: Number) -> Number:
        """Check that k fits these options, and return it as `check_budget` does.

        Raises:
            ValueError: k is neither a count >= 1 nor a share in (0, 1], or leaves no slot beside the protected tokens.
        """
        k = check_budget(k)
        if isinstance(k, int) and len(self.protected) >= k:
            raise ValueError(f"expected fewer protected tokens than k = {k}, got {len(self.protected)}; raise k")
        return k

    def temperature_at(self, progress: float) -> float:
        """The temperature in training at a progress in [0, 1]: `initial_temperature ** (1 - progress) * temperature **
        progress`.
        """
        assert self.temperature is not None
        if self.initial_temperature is None:
            return self.temperature
        return self.initial_temperature ** (1 - progress) * self.temperature**progress

    def to_dict(self) -> dict[str, Any]:
        """The options by name, ready for JSON.

        Raises:
            ValueError: the scorer is a module, which has no name to save.
        """
        if isinstance(self.scorer, nn.Module):
            raise ValueError(f"expected a scorer that has a name ({', '.join(SCORERS)}) to be saved, got a module")
        return {name: getattr(self, name) for name in NAMES} | {"protected": list(self.protected)}


def check_budget(k: Number) -> Number:
    """Return k, a whole number as an int. Raise ValueError if it is neither a count >= 1 nor a share in (0, 1]."""
    k = whole(k)
    count = isinstance(k, int) and not isinstance(k, bool) and k >= 1
    if not count and not (isinstance(k, float) and 0 < k <= 1):
        raise ValueError(f"expected k to be a whole number >= 1 or a share in (0, 1], got {k!r}")
    return k


def fill_in(fields: Any) -> None:
    """Fill in what the operator decides where it is not given: temperatures and eval_operator.

    Args:
        fields: an object with the fields of `PoolingOptions`.
    """
    if fields.operator not in OPERATORS:
        return  # whoever checks the fields refuses it
    operator, decided = OPERATORS[fields.operator], {}
    if fields.eval_operator is None:
        decided["eval_operator"] = operator.eval_operator or fields.operator
    if fields.temperature is None:
        decided["temperature"] = operator.temperature
        if fields.initial_temperature is None:
            decided["initial_temperature"] = operator.initial_temperature
    for name, value in decided.items():
        object.__setattr__(fields, name, value)  # a record is frozen, once it is made


def fill_temperatures(fields: Any) -> None:
    """What the model code in checkpoints calls that were saved before there was an eval_operator."""
    if fields.eval_operator is None:
        object.__setattr__(fields, "eval_operator", fields.operator)
    fill_in(fields)


OF_OPERATOR = {"eval_operator": None, "temperature": None, "initial_temperature": None}  # another one brings its own
NAMES = tuple(field.name for field in dataclasses.fields(PoolingOptions))


def without_boost(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name without the `boost` of 0.1.0, which the operator's name says now."""
    options = dict(options)
    boost = options.pop("boost", None)
    if boost is None or options.get("operator", "successive_halving") != "successive_halving":
        return options  # the others had no use for it
    if boost not in ("softmax", "relative"):
        raise ValueError(f"a pooling has no boost {boost!r} any more; call successive_halving_topk, which has")
    return options | ({"operator": "successive_halving_relative"} if boost == "relative" else {})


def as_saved(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a checkpoint describes, by name, with the defaults of the version that saved it.

    Before there was an eval_operator, an operator pooled in both modes.
    """
    if "eval_operator" in options:
        return dict(options)
    options = without_boost(options)
    defaults = {} if "temperature" in options else {"temperature": 0.0625, "initial_temperature": 4.0}
    return defaults | options | {"eval_operator": options.get("operator", "successive_halving")}


def like_options(name: str, types: dict[str, Any]) -> Any:
    """Make a dataclass with the fields of `PoolingOptions`, as a base for one that has further fields.

    Args:
        name: of the class.
        types: {field: type} for fields with another type there. Where that is a list, so is the field's default.
    """
    fields, kinds = [], get_type_hints(PoolingOptions) | types
    for option in dataclasses.fields(PoolingOptions):
        kind = kinds[option.name]
        default: Any = {"default": option.default}
        if kind == list[int]:
            default = {"default_factory": lambda value=option.default: list(value)}
        fields.append((option.name, kind, dataclasses.field(**default, metadata=option.metadata)))
    return dataclasses.make_dataclass(name, fields)
