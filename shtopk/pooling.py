"""The trainable module: a scorer, one top-k operator that teaches it, and one that pools afterwards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.assignment import Assignment
from shtopk.operators import OPERATORS
from shtopk.options import NAMES, PoolingOptions, check_budget
from shtopk.rows import topk_by_row, with_slots
from shtopk.scorers import SCORERS, ByPlace, ScorerLinear
from shtopk.selection import PooledTokens
from shtopk.topk import TopK

__all__ = ["PooledTokens", "ScorerLinear", "TopKPooling", "anneal", "poolings"]  # two of them for old checkpoints


class TopKPooling(nn.Module):
    """Score each token vector, pool n of them to k by these scores, and learn the scores from the task's loss.

    In training mode it pools by `operator`, in eval mode by `eval_operator`. By default successive halving teaches
    which tokens matter, and select and merge pools by what was learnt: it takes the same scores, and loses less, but
    before a decoder that learnt to read the tournament's slots.

    The temperature is the same throughout, unless an `initial_temperature` is given. In training mode it is then
    `initial_temperature ** (1 - progress) * temperature ** progress`: call `anneal(model, progress)` before each step
    to move `progress` from 0 to 1. A sharp temperature from the start teaches the scorer next to nothing.

    Temperatures are in units of the scores. So the scorer can set the scale of its scores itself, and choose softly
    while it knows little. `operator="successive_halving_relative"` takes that freedom away: its temperature is in
    units of the scores' spread.

    Args:
        hidden_size: d, the size of the token vectors.
        k: slots to keep, protected ones included: a whole number >= 1, or a share in (0, 1] of each row's own real
            tokens. With a share a row of m tokens gets ceil(k * m) slots, one more than there are protected places at
            least, and the output has the ceil(k * n) slots of a row without padding. The operator runs once for each
            different number. So `torch.compile` breaks its graph there, and `fullgraph=True` and `torch.export` are
            refused, unless no mask is given.
        options: the options as one record.
        by_name: the options by name, instead: operator, eval_operator, temperature, initial_temperature, scorer,
            keep_order, protected. `PoolingOptions` explains them. Each can be read as an attribute of the module
            (`scorer` is the scorer itself).

    Raises:
        ValueError: an impossible k, temperature or name.

    Example:
        >>> pooling = TopKPooling(hidden_size=8, k=2).eval()
        >>> pooled = pooling(torch.randn(3, 10, 8), torch.ones(3, 10))
        >>> pooled.hidden_states.shape
        torch.Size([3, 2, 8])

    Source: Pietruszka, Borchmann, Graliński 2020, "Successive Halving Top-k Operator"; that another operator pools in
    eval mode, and the schedule, are this library's.
    """

    def __init__(self, hidden_size: int, k: int | float, options: PoolingOptions | None = None, **by_name: Any):
        super().__init__()
        if options is not None and by_name:
            raise ValueError(f"expected options as one record or by name, got both: {', '.join(by_name)}")
        self.options = PoolingOptions.of(by_name) if options is None else options
        self.hidden_size, self.k = hidden_size, self.options.check(k)
        scorer = self.options.scorer
        self.scorer = scorer if isinstance(scorer, nn.Module) else SCORERS[scorer](hidden_size)
        self._by_place = isinstance(self.scorer, ByPlace)
        self.progress = 0.0
        self.training_k: int | None = None

    @property
    def progress(self) -> float:
        """How far training has come, from 0 (soft) to 1 (sharp); set by `anneal`."""
        return self._progress

    @progress.setter
    def progress(self, progress: float) -> None:
        self._progress = progress
        # A tensor: a Python float would be baked into the graph. CPU is fine: 0-dim tensors mix with any device.
        with torch.inference_mode(False):  # or a backward pass could not keep it
            self._annealed = torch.tensor(self.options.temperature_at(progress), dtype=torch.float64, device="cpu")

    @property
    def current_temperature(self) -> float:
        """The temperature of the next call: the annealed one in training mode, `temperature` in eval mode."""
        return self.options.temperature_at(self.progress if self.training else 1.0)

    @property
    def current_k(self) -> int | float:
        """The k of the next call without one: that drawn by `draw_k` in training mode, if any, `k` in eval mode."""
        return self.k if self.training_k is None or not self.training else self.training_k

    def slots_for(self, n: int, k: int | float | None = None) -> int:
        """How many slots a row of n real tokens gets.

        Args:
            n: real tokens.
            k: a count or a share to use in place of the module's k.

        Raises:
            ValueError: k is neither a count >= 1 nor a share in (0, 1].
        """
        k = check_budget(self.current_k if k is None else k)
        # 0.07 * 100 is a little more than 7.
        return max(math.ceil(round(k * n, 9)) if isinstance(k, float) else k, len(self.options.protected) + 1)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        k: int | float | None = None,
        counted: Tensor | None = None,
    ) -> TopK:
        """Pool token vectors to k slots.

        Args:
            hidden_states: [B, n, d] the token vectors.
            attention_mask: [B, n] positive for a real token, 0 for padding; None: all are real.
            k: a count or a share for this call, in place of the module's k.
            counted: [B, N] nonzero for a real token, where the vectors given are slots of an earlier pooling of N
                tokens: a k that is a share is a share of these. None: of the vectors given.

        Returns:
            TopK: `hidden_states` [B, k, d], the pooled vectors; `attention_mask` [B, k], which slots hold a token, in
            the dtype of the mask given (bool without one); `positions` [B, k], the token that leads each slot;
            `scores` [B, k]; `assignment`. In a row of which a real token's score is NaN, all vectors are NaN.

        Raises:
            ValueError: an impossible k, vectors or a mask of another shape, or, on a CPU, one with negative numbers.
        """
        if hidden_states.dim() != 3:
            raise ValueError(f"expected token vectors [B, n, d], got {list(hidden_states.shape)}")
        if attention_mask is None:
            mask = hidden_states.new_ones(hidden_states.shape[:2]).bool()
        else:
            _check_mask(attention_mask, hidden_states.shape[:2])
            mask = attention_mask != 0
        k = self.current_k if k is None else k
        counted = attention_mask if counted is None else counted
        slots = self.slots_for((mask if counted is None else counted).shape[1], k)
        if counted is None or not isinstance(k, float) or k == 1:  # more slots than tokens change nothing
            ks: int | Tensor = slots
        else:
            ks = self._slots_by_row(counted, k)
        protected = self.options.protected
        alone = _alone(protected, mask)
        free = mask & ~alone.any(1) if protected else mask
        scored = hidden_states if attention_mask is None or self._by_place else _numbers(hidden_states, mask)
        if self.training and hidden_states.requires_grad and not torch.compiler.is_compiling():
            self._warn_of_frozen_scorer()
        ks = ks - len(protected)  # slots of the free ones
        scores = self._scores(scored, free, ks)
        temperature = self._annealed if self.training else self.options.temperature
        operator = OPERATORS[self.options.operator if self.training else str(self.options.eval_operator)].topk

        def topk(values: Tensor, scores: Tensor, k: int, mask: Tensor) -> TopK:
            return operator(values, scores, k, mask=mask, temperature=temperature)

        if isinstance(ks, Tensor):
            out = with_slots(topk_by_row(topk, hidden_states, scores, ks, free), slots - len(protected))
        else:
            out = topk(hidden_states, scores, ks, free)
        if not self._by_place:
            out = _with_nan(out, scores, free)
        if protected:
            out = out.with_protected(hidden_states, alone)
        if self.options.keep_order:
            out = out.in_order()
        if attention_mask is None:
            return out
        # Not out._replace(...): what it makes cannot leave a graph that torch.compile of torch 2.11 traced.
        return TopK.of(out.values, out.scores, out.assignment, attention_mask.dtype)

    def _slots_by_row(self, counted: Tensor, k: float) -> Tensor:
        """[B] how many slots each row gets, on the CPU."""
        tokens = (counted != 0).sum(-1).cpu().double()  # as Python's numbers, so that `slots_for` says the same
        return (k * tokens).round(decimals=9).ceil().long().clamp(min=len(self.options.protected) + 1)

    def _warn_of_frozen_scorer(self) -> None:
        parameters = list(self.scorer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            warnings.warn(
                "the scorer of a TopKPooling is frozen, while what it scores is trained; if an adapter of PEFT left "
                "it out, name it in modules_to_save=['scorer'], or another one is drawn where the adapter is loaded",
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        operators = f"operator={self.options.operator}, eval_operator={self.options.eval_operator}"
        return f"k={self.k}, {operators}, temperature={self.options.temperature}"

    def _scores(self, hidden_states: Tensor, mask: Tensor, k: int | Tensor) -> Tensor:
        """[B, n] how much each token is wanted."""
        if self._by_place:
            return self.scorer(mask, k.to(mask.device).unsqueeze(-1) if isinstance(k, Tensor) else k)
        scores = self.scorer(hidden_states)
        return scores.squeeze(-1) if scores.dim() == hidden_states.dim() else scores


def _option(name: str) -> property:
    return property(lambda pooling: getattr(pooling.options, name), doc=f"See `PoolingOptions.{name}`.")


for _name in NAMES:
    if _name != "scorer":  # the attribute of this name is the module
        setattr(TopKPooling, _name, _option(_name))


def poolings(model: nn.Module) -> list[TopKPooling]:
    """List every `TopKPooling` inside a model."""
    return [module for module in model.modules() if isinstance(module, TopKPooling)]


def anneal(model: nn.Module, progress: float) -> float:
    """Tell every `TopKPooling` inside a model how far training has come, so that its temperature falls.

    Args:
        model: a pooling, or any module with poolings inside.
        progress: in [0, 1]: 0 is the start (soft), 1 the end (sharp).

    Returns:
        The temperature that training works at now; with several poolings, that of the last one.

    Raises:
        ValueError: progress outside [0, 1], or a model without a `TopKPooling`.

    Example:
        >>> pooling = TopKPooling(hidden_size=8, k=2, temperature=0.1, initial_temperature=10.0).train()
        >>> anneal(pooling, 0.5)
        1.0
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"expected progress in [0, 1], got {progress!r}")
    found = poolings(model)
    if not found:
        raise ValueError(f"expected a model with a TopKPooling inside, found none in {type(model).__name__}")
    for pooling in found:
        pooling.progress = progress
    return found[-1].options.temperature_at(progress)


def _numbers(hidden_states: Tensor, mask: Tensor) -> Tensor:
    """Hidden states for a scorer to read: 0 behind the mask, where anything might be no number.

    A NaN there times its gradient, which is 0, would be a part of the scorer's gradient. On a CPU a look at the sum
    saves the copy nearly always. On a GPU it would be a wait for the device.
    """
    if _can_be_read(hidden_states) and hidden_states.detach().sum().isfinite():
        return hidden_states
    return hidden_states.masked_fill(~mask.unsqueeze(-1), 0)


def _with_nan(out: TopK, scores: Tensor, mask: Tensor) -> TopK:
    """The same, with vectors of NaN in a row of which a real token has such a score.

    An operator leaves its slot empty, and a model that has diverged would go on with a loss that is a number.
    """
    if _can_be_read(scores) and scores.detach().sum(dtype=torch.float32).isfinite():
        return out
    lost = (scores.isnan() & mask).any(1)
    values = out.values.masked_fill(lost[:, None, None], torch.nan)
    weights, slots, filled, positions = out.assignment
    first = torch.arange(filled.shape[1], device=filled.device) == 0
    filled = filled | (lost[:, None] & first)  # where no slot was left, a mask would hide it
    return TopK.of(values, out.scores, Assignment(weights, slots, filled, positions))


def _check_mask(mask: Tensor, shape: torch.Size) -> None:
    if mask.shape != shape:
        raise ValueError(f"expected a mask of the scores' shape {list(shape)}, got {list(mask.shape)}")
    if mask.dtype.is_signed and _can_be_read(mask) and (mask < 0).any():
        raise ValueError("expected a mask of 1 for a real token and 0 for padding, got negative numbers; an additive "
                         "mask has 0 for a real token, so give mask == 0")  # fmt: skip


def _can_be_read(x: Tensor) -> bool:
    """Whether a look at a tensor's numbers costs no wait for a device, and belongs to no graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _alone(protected: Sequence[int], mask: Tensor) -> Tensor:
    """[B, p, n] True where each protected token stands. A place that a row lacks, or has already, is left out."""
    from_start = mask.cumsum(-1)  # real tokens up to here: 1 at the first
    to_end = from_start[:, -1:] - from_start + 1  # and from here on: 1 at the last
    found = [mask & (from_start == p + 1 if p >= 0 else to_end == -p) for p in protected]
    alone = torch.stack(found, 1) if found else mask.new_zeros(mask.shape[0], 0, mask.shape[1])
    return alone & (alone.cumsum(1) == 1)
