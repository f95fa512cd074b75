"""The rivals, behind the same signature: iterative top-k (Goyal et al. 2017) and hard top-k."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.selection import TopK, bounded, candidates
from shtopk.slots import pool_by_slot

Gradient = Literal["none", "gate", "straight_through"]


def iterative_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    keep_order: bool = False,
) -> TopK:
    r"""Pool by k softmaxes over all n tokens, one for each slot: O(k n) time and memory.

    Slot i mixes all tokens but the i - 1 best ones with weights :math:`\mathrm{softmax}_j(-(s_j - m_i)^2 / T)`,
    where m_i is the i-th highest score (Goyal et al. 2017, "A Continuous Relaxation of Beam Search"; Pietruszka et
    al. 2020, Algorithm 1, who overwrite each maximum by a large negative number once it was taken). As published
    there is no temperature, which is T = 1. The weights of a slot sum to 1; T -> 0 gives `hard_topk`.

    Args, Returns and Raises are those of `successive_halving_topk`; the temperature is in squared units of the
    scores, and `weights` are [*, k, n], as every token flows into every slot.

    Example:
        >>> iterative_topk(torch.eye(4), torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2, temperature=0.01).positions
        tensor([1, 3])
    """
    given = candidates(values, scores, k, mask, temperature)
    n = given.scores.shape[-1]
    slots = min(k, n)
    ranking, order = bounded(given.scores, given.mask).sort(dim=-1, descending=True, stable=True)
    real = ranking > -torch.inf
    ranking = ranking.masked_fill(~real, 0)
    distance = (ranking.unsqueeze(-2) - ranking[:, :slots].unsqueeze(-1)) ** 2  # [B, k, n]
    divisor = torch.as_tensor(temperature, dtype=distance.dtype, device=distance.device)
    logits = -distance / divisor.clamp(min=torch.finfo(distance.dtype).tiny)
    taken = torch.ones(slots, n, dtype=torch.bool, device=logits.device).tril(-1)
    filled = real[:, :slots]
    logits = logits.masked_fill(taken | ~real.unsqueeze(-2), -torch.inf).masked_fill(~filled.unsqueeze(-1), 0)
    weights = logits.softmax(-1).masked_fill(~filled.unsqueeze(-1), 0)
    pooled_scores = (weights * ranking.unsqueeze(-2)).sum(-1)
    weights = weights.gather(-1, order.argsort(-1).unsqueeze(-2).expand_as(weights))  # columns back to the tokens

    def empty(x: Tensor) -> Tensor:
        """[B, min(k, n), ...] -> [B, k, ...], filled up with empty slots."""
        return torch.cat([x, x.new_zeros(x.shape[0], k - slots, *x.shape[2:])], 1)

    weights, filled = empty(weights), empty(filled)
    values = given.values if given.mask is None else given.values.masked_fill(~given.mask.unsqueeze(-1), 0)
    out = given.unflatten(
        TopK(
            values=weights.to(values.dtype) @ values,
            scores=empty(pooled_scores).to(scores.dtype),
            mask=filled,
            positions=empty(order[:, :slots]).masked_fill(~filled, 0),
            weights=weights,
            slots=None,
        )
    )
    return out.in_order() if keep_order else out


def hard_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    gradient: Gradient = "none",
    temperature: float | Tensor = 1.0,
    keep_order: bool = False,
) -> TopK:
    r"""Keep the k vectors of the highest scores and drop the others: `torch.topk` and a gather.

    Choosing has no gradient of its own. `gradient` says what the scores learn from instead:

    - `"none"`: nothing flows from the pooled vectors to the scores;
    - `"gate"`: a kept vector is multiplied by :math:`\sigma(s / T)`, so weights lie in (0, 1) and do not sum to 1;
    - `"straight_through"`: forward as `"none"`; backward as if a kept vector were multiplied by its
      :math:`\mathrm{softmax}(s / T)` over all real tokens, so every real token's score receives a gradient.

    Args, Returns and Raises are those of `successive_halving_topk`; the temperature is in units of the scores and
    without effect for `"none"`. The pooled scores are the scores kept, and differentiable in every form.

    Example:
        >>> hard_topk(torch.eye(4), torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2).values
        tensor([[0., 1., 0., 0.],
                [0., 0., 0., 1.]])
    """
    if gradient not in get_args(Gradient):
        raise ValueError(f"expected gradient to be one of {', '.join(get_args(Gradient))}; got {gradient!r}")
    given = candidates(values, scores, k, mask, temperature)
    batch, n = given.scores.shape
    every = bounded(given.scores, given.mask)
    kept, positions = every.topk(min(k, n), -1)  # [B, min(k, n)]
    slots = torch.full((batch, n), -1, device=kept.device)
    slots = slots.scatter(-1, positions, torch.arange(min(k, n), device=kept.device).expand_as(positions))
    if given.mask is not None:
        slots = slots.masked_fill(~given.mask, -1)
    if gradient == "gate":
        weights = torch.sigmoid(every / temperature)
    elif gradient == "straight_through":
        soft = (every / temperature).masked_fill((every == -torch.inf).all(-1, keepdim=True), 0).softmax(-1)
        weights = 1 + soft - soft.detach()
    else:
        weights = torch.ones_like(every)
    weights = weights.masked_fill(slots < 0, 0)
    spare = (0, k - min(k, n))
    filled = F.pad(kept > -torch.inf, spare)
    out = given.unflatten(
        TopK(
            values=pool_by_slot(given.values, weights, slots, k),
            scores=F.pad(kept, spare).masked_fill(~filled, 0).to(scores.dtype),
            mask=filled,
            positions=F.pad(positions, spare).masked_fill(~filled, 0),
            weights=weights,
            slots=slots,
        )
    )
    return out.in_order() if keep_order else out
