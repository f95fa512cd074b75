"""The Successive Halving Top-k Operator (Pietruszka, Borchmann, Graliński 2020, arXiv:2010.15552, Algorithm 2).

The paper mixes the vectors themselves, round by round. But the weights of a round depend on scores alone, and every
token flows into exactly one slot: the tournament is a binary tree. So here it is played on the scores; the weights
along a token's path multiply to one weight; and the values are read once, at the end. Beyond the paper:

- any n and k: the ranking is filled up to k * 2^R places with losers that nobody mixes with (weight exactly 0).
  Padding tokens are such losers too, so padding cannot change a result;
- the temperature can be relative to the scores' own spread (`boost="relative"`);
- weights too small to change a sum in the scores' precision are dropped, and their tokens are not read.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from shtopk.selection import TopK, candidates, heaviest, pool_by_slot

Boost = Literal["relative", "softmax", "power"]

DEFAULT_TEMPERATURE = {"relative": 0.0625, "softmax": 0.0625, "power": 1.0}
SMALLEST_SPREAD = 1e-6  # in units of the scores: equal scores have no scale of their own


def successive_halving_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor | None = None,
    boost: Boost = "relative",
    base: float = 20.0,
    keep_order: bool = False,
) -> TopK:
    r"""Pool n vectors to the k of the highest scores by a differentiable tournament.

    In each round the candidates are sorted by score, the i-th best meets the i-th worst, and a pair (x, y) becomes
    one candidate :math:`w v_x + (1 - w) v_y` with the score :math:`w x + (1 - w) y`, until k are left;
    O(log(n / k)) rounds on scores, one read of the values. With x >= y the weight of the winner is

    - `"relative"`: :math:`\sigma((x - y) / (T s))`, where s, the spread at the selection boundary, is the mean of
      the k best scores less the mean of the k next ones (no gradient flows into s). Scaling or shifting the scores
      changes nothing, and one temperature serves every n and k;
    - `"softmax"`: :math:`\sigma((x - y) / T)`, the paper's boosted softmax with C = 1 / T;
    - `"power"`: :math:`\sigma((b^x - b^y) / T)`, the form of the authors' released code, for scores in (0, 1).

    The weights of a slot sum to 1, and for T -> 0 the result is that of `hard_topk`.

    Args:
        values: [*, n, d] what is pooled; n >= 1, any leading dimensions.
        scores: [*, n] how much each token is wanted.
        k: slots, >= 1; with fewer than k real tokens the slots left over are empty.
        mask: [*, n] True (or nonzero) for a real token; None: all are real. Masked tokens get weight and gradient 0.
        temperature: > 0, small is hard; a number or a scalar tensor. By default 1/16 (1 with `"power"`).
        boost: how a pair's weights are made, see above.
        base: b > 1 of `"power"`.
        keep_order: put the slots in document order instead of by falling score.

    Returns:
        TopK: pooled vectors, scores, mask, positions and the soft choice itself.

    Raises:
        ValueError: shapes that do not fit, k < 1, temperature <= 0, an unknown boost.

    Example:
        >>> values = torch.eye(4)
        >>> out = successive_halving_topk(values, torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2)
        >>> out.positions
        tensor([1, 3])
    """
    if boost not in get_args(Boost):
        raise ValueError(f"expected boost to be one of {', '.join(get_args(Boost))}; got {boost!r}")
    if not base > 1:
        raise ValueError(f"expected base > 1, got {base!r}")
    temperature = DEFAULT_TEMPERATURE[boost] if temperature is None else temperature
    given = candidates(values, scores, k, mask, temperature)
    weights, slots, pooled_scores = _tournament(given.scores, k, temperature, boost, base)
    # Together the dropped weights of a slot stay under the rounding error of their sum, 1.
    negligible = torch.finfo(weights.dtype).eps * k / weights.shape[-1]
    weights = weights.masked_fill(~given.mask | (weights < negligible), 0)
    slots = slots.masked_fill(~given.mask, -1)
    out = given.topk(
        values=pool_by_slot(given.values, weights, slots, k),
        scores=pooled_scores,
        mask=pooled_scores > -torch.inf,
        positions=heaviest(weights.detach(), slots, k),
        weights=weights,
        slots=slots,
        dtype=scores.dtype,
    )
    return out.in_order() if keep_order else out


def _tournament(scores: Tensor, k: int, temperature: float | Tensor, boost: Boost, base: float):
    """Scores [B, n], -inf where there is no token -> weights [B, n], slots [B, n], pooled scores [B, k]."""
    batch, n = scores.shape
    rounds = max(0, math.ceil(math.log2(n / k)))
    byes = scores.new_full((batch, k * 2**rounds - n), -torch.inf)
    ranking, order = torch.cat([scores, byes], -1).sort(dim=-1, descending=True, stable=True)  # [B, k * 2^R]
    if boost == "relative":
        temperature = temperature * _spread(ranking, k)

    wins, orders = [], [order]
    for _ in range(rounds):
        winners, losers = ranking.chunk(2, -1)
        losers = losers.flip(-1)
        win = _win(winners, losers, temperature, boost, base)  # [B, m / 2]
        margin = (winners - losers).masked_fill(losers == -torch.inf, 0)
        ranking, order = (winners - (1 - win) * margin).sort(dim=-1, descending=True, stable=True)
        wins.append(win)
        orders.append(order)

    # Back from the k slots to the tokens: each place of a ranking hands its slot and weight to its two candidates.
    weights = torch.ones_like(ranking)
    slots = torch.arange(k, device=scores.device).expand(batch, k)
    for win, order in zip(reversed(wins), reversed(orders[1:]), strict=True):
        weights, slots = _unsort(weights, order), _unsort(slots, order)
        weights = torch.cat([weights * win, (weights * (1 - win)).flip(-1)], -1)
        slots = torch.cat([slots, slots.flip(-1)], -1)
    weights, slots = _unsort(weights, orders[0]), _unsort(slots, orders[0])
    return weights[:, :n], slots[:, :n], ranking


def _win(winners: Tensor, losers: Tensor, temperature: float | Tensor, boost: Boost, base: float) -> Tensor:
    """Weight in [0.5, 1] of the winner of each pair; exactly 1 where the loser is no token."""
    bye = losers == -torch.inf
    if boost == "power":
        limit = math.log(torch.finfo(winners.dtype).max) / 2  # the power of a score far outside (0, 1) stays finite
        winners, losers = ((math.log(base) * x).clamp(max=limit).exp() for x in (winners, losers))
    margin = (winners - losers).masked_fill(bye, 0)
    divisor = torch.as_tensor(temperature, dtype=margin.dtype, device=margin.device)
    win = torch.sigmoid(margin / divisor.clamp(min=torch.finfo(margin.dtype).tiny))
    return win.masked_fill(bye, 1)


def _spread(ranking: Tensor, k: int) -> Tensor:
    """[B, 1] by how much the k best of a falling ranking exceed the k next, on average; no gradient."""
    ranking = ranking.detach()
    real = ranking > -torch.inf
    finite = ranking.masked_fill(~real, 0)
    best, next_ = (finite[:, part].sum(-1, keepdim=True) / real[:, part].sum(-1, keepdim=True).clamp(min=1)
                   for part in (slice(k), slice(k, 2 * k)))  # fmt: skip
    # Below the resolution of the scores themselves a difference is rounding, not a preference.
    resolution = 8 * torch.finfo(ranking.dtype).eps * finite.abs().amax(-1, keepdim=True)
    return torch.maximum(best - next_, resolution).clamp(min=SMALLEST_SPREAD)


def _unsort(x: Tensor, order: Tensor) -> Tensor:
    """Undo `sorted = y.gather(-1, order)`."""
    return torch.zeros_like(x).scatter(-1, order, x)
