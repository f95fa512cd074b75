"""Iterative top-k (Goyal et al. 2017): one softmax over all tokens for each slot."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.candidates import bounded, candidates
from shtopk.slots import product
from shtopk.topk import TopK
from shtopk.tracing import stable_sort


def iterative_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    keep_order: bool = False,
) -> TopK:
    """Pool by k softmaxes over all n tokens, one for each slot: O(k n) time and memory.

    Slot i leaves out the i - 1 best tokens and mixes all others. Token j has the weight `softmax_j(-(s_j - m_i)^2 /
    T)`, where `s_j` is its score and `m_i` the i-th highest score. The weights of a slot sum to 1. As T falls to 0,
    the result becomes that of `hard_topk`. The published operator has no temperature, which is T = 1 here.

    Args:
        values: [*, n, d] the vectors to pool.
        scores: [*, n] how much each token is wanted, no NaN, which is looked for by `TopKPooling` alone.
        k: slots, >= 1; with fewer than k real tokens the remaining slots are empty.
        mask: [*, n] nonzero for a real token; None: all are real.
        temperature: T > 0, in squared units of the scores; small is hard.
        keep_order: put the slots in document order instead of by falling score.

    Returns:
        TopK: pooled vectors, scores, mask, positions and assignment. Its `weights` are [*, k, n] and its `slots` None,
        as every token flows into every slot.

    Raises:
        ValueError: shapes that do not fit, k < 1, or temperature <= 0.

    Example:
        >>> iterative_topk(torch.eye(4), torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2, temperature=0.01).positions
        tensor([1, 3])

    Source: Goyal et al. 2017, "A Continuous Relaxation of Beam Search", and Pietruszka et al. 2020, Algorithm 1, which
    overwrites each maximum by a large negative number once it has been taken.
    """
    given = candidates(values, scores, k, mask, temperature)
    n = given.scores.shape[-1]
    kept = min(given.k, n)
    ranking, order = stable_sort(bounded(given.scores, given.mask), descending=True)
    real = ranking > -torch.inf
    ranking = ranking.masked_fill(~real, 0)
    numbers = torch.finfo(ranking.dtype)
    near = ranking.clamp(-(numbers.max**0.25), numbers.max**0.25)  # so that a square is finite, and by a temperature
    distance = (near.unsqueeze(-2) - near[:, :kept].unsqueeze(-1)) ** 2  # [B, k, n]
    logits = -distance / given.temperature.clamp(min=numbers.tiny)
    taken = torch.ones(kept, n, dtype=torch.bool, device=logits.device).tril(-1)
    filled = real[:, :kept]
    logits = logits.masked_fill(taken | ~real.unsqueeze(-2), -torch.inf).masked_fill(~filled.unsqueeze(-1), 0)
    weights = logits.softmax(-1).masked_fill(~filled.unsqueeze(-1), 0)
    pooled_scores = (weights * ranking.unsqueeze(-2)).sum(-1)
    weights = weights.gather(-1, order.argsort(-1).unsqueeze(-2).expand_as(weights))  # columns back to the tokens

    def empty(x: Tensor) -> Tensor:
        """Fill x [B, min(k, n), ...] up with empty slots to [B, k, ...]."""
        return torch.cat([x, x.new_zeros(x.shape[0], given.k - kept, *x.shape[2:])], 1)

    weights, filled = empty(weights), empty(filled)
    values = given.values if given.mask is None else given.values.masked_fill(~given.mask.unsqueeze(-1), 0)
    positions = empty(order[:, :kept]).masked_fill(~filled, 0)
    assignment = Assignment(weights, slots=None, mask=filled, positions=positions)
    pooled = product(weights.to(values.dtype), values)
    out = TopK.of(pooled, empty(pooled_scores).to(scores.dtype), assignment).unflatten(given.batch)
    return out.in_order() if keep_order else out
