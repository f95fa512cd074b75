"""Iterative top-k (Goyal et al. 2017): one softmax over all tokens for each slot."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.candidates import bounded, candidates
from shtopk.topk import TopK


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
    kept = min(k, n)
    ranking, order = bounded(given.scores, given.mask).sort(dim=-1, descending=True, stable=True)
    real = ranking > -torch.inf
    ranking = ranking.masked_fill(~real, 0)
    distance = (ranking.unsqueeze(-2) - ranking[:, :kept].unsqueeze(-1)) ** 2  # [B, k, n]
    logits = -distance / given.temperature.clamp(min=torch.finfo(distance.dtype).tiny)
    taken = torch.ones(kept, n, dtype=torch.bool, device=logits.device).tril(-1)
    filled = real[:, :kept]
    logits = logits.masked_fill(taken | ~real.unsqueeze(-2), -torch.inf).masked_fill(~filled.unsqueeze(-1), 0)
    weights = logits.softmax(-1).masked_fill(~filled.unsqueeze(-1), 0)
    pooled_scores = (weights * ranking.unsqueeze(-2)).sum(-1)
    weights = weights.gather(-1, order.argsort(-1).unsqueeze(-2).expand_as(weights))  # columns back to the tokens

    def empty(x: Tensor) -> Tensor:
        """[B, min(k, n), ...] -> [B, k, ...], filled up with empty slots."""
        return torch.cat([x, x.new_zeros(x.shape[0], k - kept, *x.shape[2:])], 1)

    weights, filled = empty(weights), empty(filled)
    values = given.values if given.mask is None else given.values.masked_fill(~given.mask.unsqueeze(-1), 0)
    positions = empty(order[:, :kept]).masked_fill(~filled, 0)
    assignment = Assignment(weights, slots=None, mask=filled, positions=positions)
    pooled = weights.to(values.dtype) @ values
    out = TopK.of(pooled, empty(pooled_scores).to(scores.dtype), assignment).unflatten(given.batch)
    return out.in_order() if keep_order else out
