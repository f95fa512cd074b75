"""Means of stretches, and of whatever else gives each token a slot."""

import torch
from torch import Tensor, nn

from rivals.hard_choice import WithoutScorer, first_token
from shtopk import Assignment, TopK


def mean_of_slots(values: Tensor, slots: Tensor, k: int) -> TopK:
    """The mean of each slot's vectors: values [B, n, d] and slots [B, n], -1 for none, become [B, k, d].

    The gradient to the values is exact, there is none to the slots; scores are 0.
    """
    used = slots >= 0
    index = slots.clamp(min=0)
    dtype = torch.promote_types(values.dtype, torch.float32)
    count = torch.zeros(len(slots), k, dtype=dtype, device=slots.device).scatter_add(1, index, used.to(dtype))
    weights = used / count.gather(1, index).clamp(min=1)
    assignment = Assignment.of(weights, slots, count > 0)
    return TopK.of(assignment.pool(values), values.new_zeros(count.shape), assignment)


class Stretches(nn.Module):
    """The means of k stretches of equal length, the first ones a token longer where n / k is no whole number.

    Nothing is learned; the same in training and eval mode. Time and memory O(n). A row of m < k real tokens fills m
    slots. No paper: what anyone would try first.
    """

    def __init__(self, hidden_size: int, k: int):
        super().__init__()
        self.k = k

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        return mean_of_slots(hidden_states, stretches(mask, self.k), self.k)


class StretchesOfPrompt(WithoutScorer):
    """The first token, and the means of k - 1 stretches of equal length of what follows it.

    The model around it can learn to read means, and has to. A slot stands where its stretch begins. Time and memory
    O(n).

    Source: Feldman and Artzi 2025, "Simple Context Compression: Mean-Pooling and Multi-Ratio Training",
    arXiv:2510.20797. Difference: they pool what a whole encoder made, for a decoder's input, here the upper layers of
    one model read what its lower ones made.
    """

    def choose(self, vectors: Tensor, mask: Tensor, slots: int) -> TopK:
        first = first_token(mask)
        numbers = stretches(mask & ~first, slots - 1) + 1
        return mean_of_slots(vectors, numbers.masked_fill(first, 0).masked_fill(~mask, -1), slots)


def stretches(mask: Tensor, k: int) -> Tensor:
    """[B, n] which of k stretches each token of mask [B, n] belongs to, -1 for padding."""
    count = mask.sum(-1, keepdim=True)
    length, longer = count // k, count % k
    place = mask.cumsum(-1) - 1
    rest = place - longer * (length + 1)  # how far behind the longer stretches
    slots = torch.where(rest < 0, place // (length + 1), longer + rest // length.clamp(min=1))
    return slots.masked_fill(~mask, -1)
