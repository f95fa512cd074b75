"""The trainable module: a scorer and a top-k operator turn n token vectors into k, and a temperature that anneals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from shtopk.baselines import Gradient, hard_topk, iterative_topk
from shtopk.selection import TopK
from shtopk.successive_halving import Boost, successive_halving_topk

Operator = Literal["successive_halving", "iterative", "hard", "hard_gated", "hard_straight_through"]
Scorer = Literal["linear", "mlp", "first", "strided"]

HARD_GRADIENT: dict[Operator, Gradient] = {
    "hard": "none",
    "hard_gated": "gate",
    "hard_straight_through": "straight_through",
}


class PooledTokens(NamedTuple):
    """What `TopKPooling` returns.

    Attributes:
        hidden_states: [B, k, d] pooled vectors.
        attention_mask: [B, k] which of them are real, in the dtype of the mask given (bool without one).
        positions: [B, k] index of the token that dominates each slot.
        choice: the whole `TopK`, with the weight of every token in its slot.
    """

    hidden_states: Tensor
    attention_mask: Tensor
    positions: Tensor
    choice: TopK


class TopKPooling(nn.Module):
    """Score each token vector, keep k of n by a differentiable top-k, and learn which from the task's loss.

    Trains soft and works sharp: while `training`, the temperature is
    `initial_temperature ** (1 - progress) * temperature ** progress`; in eval mode it is `temperature`. Move
    `progress` from 0 to 1 over training with `anneal(model, progress)`; who never calls it trains soft throughout. A
    sharp temperature from the start gives the scorer next to nothing to learn from.

    The defaults come from this library's benchmarks (benchmarks/README.md). The boost is `"softmax"`, not
    `successive_halving_topk`'s own `"relative"`: a scorer that learns sets its scores' scale itself, and may shrink it
    to choose softly while it knows little, which a relative temperature would undo.

    Args:
        hidden_size: d, the size of the token vectors.
        k: slots to keep, protected ones included: a whole number >= 1, or a share of n in (0, 1], where n is the
            padded length (give a whole number where a row's result must not depend on its batch).
        operator: the top-k operator; `"hard_gated"` and `"hard_straight_through"` are `hard_topk` with a gradient.
        boost: see `successive_halving_topk`; without effect on the others.
        temperature: > 0, in eval mode and at the end of training.
        initial_temperature: > 0, at the start of training; None: `temperature` from start to end.
        scorer: `"linear"`, or `"mlp"` (one hidden layer of d / 4). Two that learn nothing serve as controls:
            `"first"` wants the first tokens, `"strided"` every (n / k)-th real token.
        keep_order: pooled vectors in document order rather than by falling score.
        protected: places of tokens that are always kept, alone in their slot with weight 1; fewer than k. They are
            not scored. 0 is the first place, [CLS]'s; -1 is a row's last real token, [SEP]'s.

    Raises:
        ValueError: an impossible k, temperature or name.

    Example:
        >>> pooling = TopKPooling(hidden_size=8, k=2).eval()
        >>> pooled = pooling(torch.randn(3, 10, 8), torch.ones(3, 10))
        >>> pooled.hidden_states.shape
        torch.Size([3, 2, 8])

    Source: Pietruszka, Borchmann, Graliński 2020, "Successive Halving Top-k Operator"; the schedule is this library's.
    """

    def __init__(
        self,
        hidden_size: int,
        k: int | float,
        *,
        operator: Operator = "successive_halving",
        boost: Boost = "softmax",
        temperature: float = 0.0625,
        initial_temperature: float | None = 4.0,
        scorer: Scorer = "linear",
        keep_order: bool = True,
        protected: Sequence[int] = (),
    ):
        super().__init__()
        for name, choice, known in (
            ("operator", operator, Operator),
            ("boost", boost, Boost),
            ("scorer", scorer, Scorer),
        ):
            if choice not in get_args(known):
                raise ValueError(f"expected {name} to be one of {', '.join(get_args(known))}; got {choice!r}")
        whole = isinstance(k, int) and not isinstance(k, bool) and k >= 1
        if not whole and not (isinstance(k, float) and 0 < k <= 1):
            raise ValueError(f"expected k to be a whole number >= 1 or a share in (0, 1], got {k!r}")
        for name, value in (("temperature", temperature), ("initial_temperature", initial_temperature)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"expected {name} > 0, got {value!r}")
        if len(set(protected)) != len(protected):
            raise ValueError(f"expected protected to be different places, got {list(protected)}")
        if whole and len(protected) >= k:
            raise ValueError(f"expected fewer protected tokens than k = {k}, got {len(protected)}; raise k")
        self.hidden_size, self.k, self.protected = hidden_size, k, tuple(protected)
        self.operator, self.boost, self.keep_order = operator, boost, keep_order
        self.temperature, self.initial_temperature = temperature, initial_temperature
        self.progress = 0.0
        self.scorer_kind = scorer
        self.scorer = _scorer(scorer, hidden_size)

    @property
    def progress(self) -> float:
        """How far training has come, 0 to 1; see `anneal`."""
        return self._progress

    @progress.setter
    def progress(self, progress: float) -> None:
        self._progress = progress
        # A tensor, since a compiler takes a number for a constant; where the scores are does not matter to a scalar.
        self._annealed = torch.tensor(self._temperature_at(progress), dtype=torch.float64, device="cpu")

    @property
    def current_temperature(self) -> float:
        """The temperature that the next `forward` works at."""
        return self._temperature_at(self.progress) if self.training else self.temperature

    def _temperature_at(self, progress: float) -> float:
        if self.initial_temperature is None:
            return self.temperature
        return self.initial_temperature ** (1 - progress) * self.temperature**progress

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, k: int | float | None = None
    ) -> PooledTokens:
        """Pool hidden_states [B, n, d] under attention_mask [B, n] (nonzero is real; None: all are).

        k: slots of this call, by default the module's.
        """
        n = hidden_states.shape[1]
        k = self.k if k is None else k
        k = k if isinstance(k, int) else math.ceil(k * n)
        protected = [p for p in self.protected if -n <= p < n]
        k = max(k, len(protected) + 1)
        mask = (
            hidden_states.new_ones(hidden_states.shape[:2]).bool() if attention_mask is None else attention_mask != 0
        )
        alone = _alone(protected, mask)
        free = mask & ~alone.any(1)
        choice = self._operator()(hidden_states, self._scores(hidden_states, free, k), k - len(protected), mask=free)
        if protected:
            choice = _protect(choice, alone, hidden_states)
        if self.keep_order:
            choice = choice.in_order()
        dtype = torch.bool if attention_mask is None else attention_mask.dtype
        return PooledTokens(choice.values, choice.mask.to(dtype), choice.positions, choice)

    def extra_repr(self) -> str:
        return f"k={self.k}, operator={self.operator}, boost={self.boost}, temperature={self.temperature}"

    def _scores(self, hidden_states: Tensor, mask: Tensor, k: int) -> Tensor:
        """[B, n] how much each token is wanted."""
        if self.scorer_kind == "first":
            return -torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32).expand(mask.shape)
        if self.scorer_kind == "strided":
            rank, count = mask.cumsum(-1) - 1, mask.sum(-1, keepdim=True).clamp(min=1)
            return (
                ((rank + 1) * k).div(count, rounding_mode="floor") > (rank * k).div(count, rounding_mode="floor")
            ).float()
        return self.scorer(hidden_states).squeeze(-1)

    def _operator(self):
        temperature = self._annealed if self.training else self.temperature
        if self.operator == "successive_halving":
            return partial(successive_halving_topk, temperature=temperature, boost=self.boost)
        if self.operator == "iterative":
            return partial(iterative_topk, temperature=temperature)
        return partial(hard_topk, gradient=HARD_GRADIENT[self.operator], temperature=temperature)


def anneal(model: nn.Module, progress: float) -> float:
    """Set how far training has come, 0 (soft) to 1 (sharp), in every `TopKPooling` inside model.

    Returns:
        The temperature now in force in training (of the last one found).

    Raises:
        ValueError: progress outside [0, 1], or a model without a `TopKPooling`.

    Example:
        >>> pooling = TopKPooling(hidden_size=8, k=2, temperature=0.1, initial_temperature=10.0).train()
        >>> anneal(pooling, 0.5)
        1.0
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"expected progress in [0, 1], got {progress!r}")
    poolings = [module for module in model.modules() if isinstance(module, TopKPooling)]
    if not poolings:
        raise ValueError(f"expected a model with a TopKPooling inside, found none in {type(model).__name__}")
    for pooling in poolings:
        pooling.progress = progress
    return poolings[-1]._temperature_at(progress)


class ScorerLinear(nn.Linear):
    """A linear layer that starts with scores that differ: equal ones have no spread for a relative temperature.

    A class of its own, so that a model with an initialisation for `nn.Linear` can tell it apart and leave it alone.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        nn.init.zeros_(self.bias)


def _scorer(kind: Scorer, hidden_size: int) -> nn.Module:
    if kind == "linear":
        return ScorerLinear(hidden_size, 1)
    if kind == "mlp":
        inner = max(1, hidden_size // 4)
        return nn.Sequential(ScorerLinear(hidden_size, inner), nn.GELU(), ScorerLinear(inner, 1))
    return nn.Identity()


def _alone(protected: list[int], mask: Tensor) -> Tensor:
    """[B, p, n] where each protected token stands; nowhere if there is none, or an earlier one is the same."""
    place = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    to_end = mask.flip(-1).cumsum(-1).flip(-1)  # real tokens from here on: 1 at the last
    found = [mask & (place == p if p >= 0 else to_end == -p) for p in protected]
    alone = torch.stack(found, 1) if found else mask.new_zeros(len(mask), 0, mask.shape[1])
    return alone & (alone.cumsum(1) == 1)


def _protect(choice: TopK, alone: Tensor, hidden_states: Tensor) -> TopK:
    """Put slots in front that hold the protected tokens alone; empty where there is no such token."""
    real, index, p = alone.any(-1), alone.int().argmax(-1), alone.shape[1]  # [B, p]
    where = index.unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1])
    taken = alone.any(1)  # [B, n]
    if choice.slots is None:
        weights, slots = torch.cat([alone.to(choice.weights.dtype), choice.weights], 1), None
    else:
        weights = choice.weights + taken
        slots = (choice.slots + p).masked_fill(choice.slots < 0, -1)
        slots = torch.where(taken, alone.int().argmax(1), slots)
    return TopK(
        values=torch.cat([hidden_states.gather(1, where).masked_fill(~real.unsqueeze(-1), 0), choice.values], 1),
        scores=torch.cat([choice.scores.new_zeros(real.shape), choice.scores], 1),
        mask=torch.cat([real, choice.mask], 1),
        positions=torch.cat([index.masked_fill(~real, 0), choice.positions], 1),
        weights=weights,
        slots=slots,
    )
