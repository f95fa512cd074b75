"""Perturbed top-k: the mean of hard choices under noise, whose gradient is an expectation too."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.gates import every
from rivals.scored import ScoredPooling
from shtopk import Assignment, TopK
from shtopk.candidates import bounded


def perturbed_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float,
    samples: int = 200,
    noise: Tensor | None = None,
) -> TopK:
    """values [B, n, d], scores [B, n] -> k slots: slot j holds the j-th token, in document order, of a noisy choice.

    `W = E[Y(s + T z)]` with z normal and Y [k, n] the choice, a one in each row; its gradient is
    `E[Y(s + T z) z] / T`. Both are means over the same samples. noise [B, samples, n] replaces the drawn one.
    """
    mask = every(scores, mask)
    if noise is None:
        noise = torch.randn(len(scores), samples, scores.shape[-1], device=scores.device)
    weights = _Choices.apply(bounded(scores, mask), noise, k, temperature)
    filled = torch.arange(k, device=mask.device) < mask.sum(-1, keepdim=True)
    assignment = Assignment.of(weights, None, filled)
    return TopK.of(assignment.pool(values), assignment.pool(scores.unsqueeze(-1)).squeeze(-1), assignment)


class _Choices(torch.autograd.Function):
    """Scores [B, n], -inf at padding, and noise [B, S, n] -> the mean choice [B, k, n]."""

    @staticmethod
    def forward(ctx, scores, noise, k, temperature):
        batch, samples, n = noise.shape
        best, chosen = (scores.unsqueeze(1) + temperature * noise).topk(min(k, n), -1)  # [B, S, min(k, n)]
        chosen = chosen.masked_fill(best == -torch.inf, n).sort(-1).values.transpose(1, 2)  # padding last, as n
        weights = scores.new_zeros(batch, k, n + 1)
        share = torch.full_like(chosen, 1 / samples, dtype=weights.dtype)
        weights[:, : chosen.shape[1]].scatter_add_(-1, chosen, share)
        ctx.save_for_backward(chosen, noise)
        ctx.temperature = temperature
        return weights[..., :n]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        chosen, noise = ctx.saved_tensors
        gradient = F.pad(gradient[:, : chosen.shape[1]], (0, 1))  # padding gains nothing
        gained = gradient.gather(-1, chosen).sum(1)  # [B, S]
        expected = torch.einsum("bs,bsn->bn", gained, noise.to(gained.dtype)) / noise.shape[1]
        return expected / ctx.temperature, None, None, None


class PerturbedTopK(ScoredPooling):
    """Each slot mixes the tokens that a choice under noise puts there: `W = E[Y(s + T z)]`, over 200 samples.

    With S samples, time O(S n) for noise and choices, O(S k log k) to put them in order, O(k n d) to pool; memory
    O(S n + S k + k n), where published code also keeps one-hot choices, S k n numbers. Hard top-k in document order
    at inference, as in PrunePert. Differences: the noise falls by shtopk's schedule, and padding is never chosen.

    Args:
        hidden_size, k, temperature, initial_temperature: see `ScoredPooling`; the temperature is the noise's standard
            deviation (the papers' sigma), in units of the scores.
        samples: S, of each row in each update.

    Source: Berthet et al. 2020, "Learning with Differentiable Perturbed Optimizers"; Cordonnier et al. 2021,
    "Differentiable Patch Selection for Image Recognition"; used on tokens by PrunePert (disi-unibo-nlp/sci-lay, 2024).
    """

    keep_order = True

    def __init__(
        self,
        hidden_size: int,
        k: int,
        temperature: float = 0.0625,
        initial_temperature: float | None = None,
        samples: int = 200,
    ):
        super().__init__(hidden_size, k, temperature, initial_temperature)
        self.samples = samples

    def soft(self, values: Tensor, scores: Tensor, mask: Tensor, temperature: float) -> TopK:
        return perturbed_topk(values, scores, self.k, mask=mask, temperature=temperature, samples=self.samples)
