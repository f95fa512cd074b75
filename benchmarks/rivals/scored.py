"""What the soft top-k operators share: one linear scorer, a temperature that may fall, hard top-k at inference."""

import torch
from torch import Tensor, nn

from shtopk import Assignment, TopK, hard_topk
from shtopk.scorers import ScorerLinear


class ScoredPooling(nn.Module):
    """A linear scorer and an operator on its scores: soft in training mode, hard top-k in eval mode.

    Args:
        hidden_size: d, length of a token vector.
        k: slots.
        temperature: > 0, at the end of training.
        initial_temperature: > 0, at its start; None: the same throughout.

    Attributes:
        progress: how far training has come, from 0 to 1; the temperature is `initial_temperature ** (1 - progress) *
            temperature ** progress`, as in `shtopk.TopKPooling`.
    """

    keep_order = False  # whether the slots of the hard choice stand in document order

    def __init__(self, hidden_size: int, k: int, temperature: float, initial_temperature: float | None = None):
        super().__init__()
        self.k, self.temperature, self.initial_temperature = k, temperature, initial_temperature
        self.scorer = ScorerLinear(hidden_size, 1)
        self.progress = 0.0

    def soft(self, values: Tensor, scores: Tensor, mask: Tensor, temperature: float) -> TopK:
        """The differentiable form."""
        raise NotImplementedError

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        scores = self.scorer(hidden_states).squeeze(-1)
        if not self.training:
            return hard_topk(hidden_states, scores, self.k, mask=mask, keep_order=self.keep_order)
        start = self.temperature if self.initial_temperature is None else self.initial_temperature
        return self.soft(hidden_states, scores, mask, start ** (1 - self.progress) * self.temperature**self.progress)


def folded(values: Tensor, scores: Tensor, weights: Tensor, k: int, mask: Tensor) -> TopK:
    """Pool by a soft mask, one weight [B, n] a token, to k slots: the mean of the slots is `sum_i w_i v_i / k`.

    The k best tokens lead a slot each; the i-th of the others, in document order, joins slot i mod k. So every token
    flows into one slot, and where the soft mask becomes hard, the slots become those of `hard_topk`. The papers stop
    at the weights; the slots are an addition.
    """
    hard = hard_topk(values.detach(), scores, k, mask=mask)
    assert hard.slots is not None
    other = mask & (hard.slots < 0)
    slots = torch.where(other, (other.cumsum(-1) - 1) % k, hard.slots)
    assignment = Assignment.of(weights.masked_fill(~mask, 0), slots, hard.mask)
    return TopK.of(assignment.pool(values), hard.scores, assignment)
