"""Bipartite merging: tokens that are alike become one, half of them at most in each round."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.stretches import mean_of_slots
from shtopk import TopK


def bipartite(vectors: Tensor, k: int) -> Tensor:
    """Vectors [m, d] -> the group [m] of each, min(k, m) of them, numbered by their last member."""
    groups, sizes = vectors.detach(), vectors.new_ones(len(vectors), 1)
    slots = torch.arange(len(vectors), device=vectors.device)
    while (m := len(groups)) > k:
        units = F.normalize(groups, dim=-1)
        likeness, nearest = (units[::2] @ units[1::2].T).max(-1)  # of every other group, to those between them
        joining = likeness.topk(min(m - k, len(nearest))).indices
        target = torch.arange(m, device=vectors.device)
        target[2 * joining] = 2 * nearest[joining] + 1
        kept, target = target.unique(return_inverse=True)
        sums = torch.zeros_like(groups[kept]).index_add(0, target, groups * sizes)
        sizes = torch.zeros_like(sizes[kept]).index_add(0, target, sizes)
        groups, slots = sums / sizes, target[slots]
    return slots


class BipartiteMerging(nn.Module):
    """The means of k groups that arise in rounds: every other token joins what it is most like among those between.

    In a round the tokens at even places look for the most similar one at an odd place, by cosine, and the most similar
    pairs become their mean, weighted by how many tokens each side stands for: as many as are too many, half at most.
    Nothing is learned; the gradient to the vectors is that of means of fixed groups. The same in training and eval
    mode. For each document, one after the other: time and memory O(n^2 d) and O(n^2), a quarter of all pairs at first.
    A row of m < k real tokens fills m slots.

    Source: Bolya et al. 2022, "Token Merging: Your ViT But Faster", arXiv:2210.09461. Differences: all rounds follow
    each other at one place instead of one in each layer, and likeness is that of the vectors instead of their keys.
    """

    def __init__(self, hidden_size: int, k: int):
        super().__init__()
        self.k = k

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        slots = torch.full(mask.shape, -1, device=mask.device)
        for row, real in enumerate(mask):
            slots[row, real] = bipartite(hidden_states[row, real], self.k)
        return mean_of_slots(hidden_states, slots, self.k)
