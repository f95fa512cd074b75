"""Soft masks: one weight in (0, 1) for each token, beside a threshold between the k-th and the next score."""

import torch
from torch import Tensor

from rivals.scored import ScoredPooling, folded
from shtopk import TopK
from shtopk.candidates import bounded


def every(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The mask, or one in which every token is real."""
    return torch.ones_like(scores, dtype=torch.bool) if mask is None else mask


def dftopk(values: Tensor, scores: Tensor, k: int, *, mask: Tensor | None = None, temperature: float) -> TopK:
    """values [B, n, d], scores [B, n] -> k slots: every token weighs `sigmoid((s_i - t) / T)`.

    The threshold t is the mean of the k-th and the (k + 1)-th highest score, and the gradient flows through both. The
    weights do not sum to k. In a row of k real tokens or fewer all weigh 1.
    """
    mask = every(scores, mask)
    ranked = bounded(scores, mask)
    few = mask.sum(-1, keepdim=True) <= k
    if k < scores.shape[-1]:
        threshold = ranked.topk(k + 1, -1).values[:, k - 1 :].mean(-1, keepdim=True).masked_fill(few, 0)
        weights = ((ranked - threshold) / temperature).sigmoid().masked_fill(few, 1)
    else:
        weights = mask.to(ranked.dtype)
    return folded(values, scores, weights, k, mask)


def lapsum(values: Tensor, scores: Tensor, k: int, *, mask: Tensor | None = None, temperature: float) -> TopK:
    """values [B, n, d], scores [B, n] -> k slots: every token weighs `F((s_i - t) / T)`, F Laplace's distribution.

    `F(x) = e^x / 2` for x <= 0, `1 - e^-x / 2` above. The threshold t is the one for which the weights sum to k, and
    the gradient flows through it. In a row of k real tokens or fewer all weigh 1.
    """
    mask = every(scores, mask)
    scaled = bounded(scores, mask) / temperature
    few = mask.sum(-1, keepdim=True) <= k
    with torch.no_grad():
        start = laplace_threshold(scaled, k).masked_fill(few, 0)
        distance = (scaled - start).abs()
        density = (-distance).exp().sum(-1, keepdim=True) / 2
    # One step of Newton's method: the threshold stays what it is, and gets the gradient of the implicit function.
    excess = laplace(scaled - start).sum(-1, keepdim=True) - k
    threshold = start + (excess / density.clamp(min=torch.finfo(density.dtype).tiny)).masked_fill(few, 0)
    return folded(values, scores, laplace(scaled - threshold).masked_fill(few, 1), k, mask)


def laplace(x: Tensor) -> Tensor:
    """Laplace's distribution function."""
    tail = (-x.abs()).exp() / 2
    return torch.where(x > 0, 1 - tail, tail)


def laplace_threshold(x: Tensor, k: int) -> Tensor:
    """The t [B, 1] for which `sum_i F(x_i - t) = k`, for x [B, n] with more than k finite entries, -inf elsewhere.

    Where j of the sorted x lie above t, the sum is `j - A e^t / 2 + C e^-t / 2`, with A the sum of `e^-x` over these j
    and C the sum of `e^x` over the rest: a quadratic equation in e^t. Sums are taken relative to x_j, in logarithms.
    """
    ranked = x.double().sort(-1, descending=True).values
    real = ranked > -torch.inf
    count = torch.arange(1, x.shape[-1] + 1, device=x.device)
    above = (-ranked).masked_fill(~real, -torch.inf).logcumsumexp(-1)  # log A at t = x_j
    rest = ranked.flip(-1).logcumsumexp(-1).flip(-1)  # with x_j itself
    below = torch.cat([rest[:, 1:], torch.full_like(rest[:, :1], -torch.inf)], -1)  # log C
    place = ranked.masked_fill(~real, 0)
    sums = count - (above + place).exp() / 2 + (below - place).exp() / 2  # at t = x_j, growing with j
    j = ((sums <= k) & real).sum(-1, keepdim=True)  # above t
    last = (j - 1).clamp(min=0)
    first = j == 0  # t lies above all x: no A, and all of C
    here = place.gather(-1, last)
    log_a = (above.gather(-1, last) + here).masked_fill(first, -torch.inf)
    log_c = torch.where(first, rest.gather(-1, last), below.gather(-1, last)) - here
    more = (k - j).double()
    root = (more**2 + (log_a + log_c).exp()).sqrt()
    few_above = log_c - (more + root).log()
    many_above = (root - more).log() - log_a
    log_root = torch.where(more > 0, few_above, torch.where(more < 0, many_above, (log_c - log_a) / 2))
    return (here + log_root).to(x.dtype)


class DFTopK(ScoredPooling):
    """Token vectors times their gates, `sigmoid((s_i - t) / T)` with t in the middle of the k-th and the next score.

    Time O(n) for the gates, which need the k + 1 best scores and no sorted ones, and memory O(n). Hard top-k at
    inference, as where the paper's ranker serves. Simplification: the paper trains by losses on the weights; the k
    slots are `folded`'s.

    Source: Zhu et al. 2025, "Differentiable Fast Top-K Selection for Large-Scale Recommendation", arXiv:2510.11472.
    """

    def __init__(
        self, hidden_size: int, k: int, temperature: float = 0.0625, initial_temperature: float | None = None
    ):
        super().__init__(hidden_size, k, temperature, initial_temperature)

    def soft(self, values: Tensor, scores: Tensor, mask: Tensor, temperature: float) -> TopK:
        return dftopk(values, scores, self.k, mask=mask, temperature=temperature)


class LapSum(ScoredPooling):
    """Token vectors times weights that sum to k: Laplace's distribution function of the distance to a threshold.

    Time O(n log n), for one sort and cumulative sums, and memory O(n). Hard top-k at inference. Simplifications: the
    paper trains by losses on the weights, and the k slots are `folded`'s; the temperature (its alpha) is not learned;
    tensor operations instead of its kernels.

    Source: Struski et al. 2025, "LapSum - One Method to Differentiate Them All", arXiv:2503.06242.
    """

    def __init__(
        self, hidden_size: int, k: int, temperature: float = 0.0625, initial_temperature: float | None = None
    ):
        super().__init__(hidden_size, k, temperature, initial_temperature)

    def soft(self, values: Tensor, scores: Tensor, mask: Tensor, temperature: float) -> TopK:
        return lapsum(values, scores, self.k, mask=mask, temperature=temperature)
