"""Clusters: tokens that are alike share a slot."""

import math

import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor, nn

from rivals.stretches import mean_of_slots
from shtopk import Assignment, TopK, hard_topk


def ward(vectors: Tensor, k: int) -> Tensor:
    """Vectors [m, d] -> the cluster [m] of each, at most k, numbered by their first member.

    Ward's linkage on cosine distances, as sentence-transformers' `HierarchicalTokenPooling` does it.
    """
    if len(vectors) <= k:
        return torch.arange(len(vectors), device=vectors.device)
    units = F.normalize(vectors.detach().float(), dim=-1).cpu()
    distance = (1 - units @ units.T).clamp(0, 2)
    tree = linkage(squareform(distance.numpy(), checks=False), method="ward")
    labels = torch.from_numpy(fcluster(tree, t=k, criterion="maxclust")).long() - 1
    order = torch.full((k,), len(labels)).scatter_reduce(0, labels, torch.arange(len(labels)), "amin")
    return order.argsort(stable=True).argsort()[labels].to(vectors.device)


class WardClusters(nn.Module):
    """The means of k Ward clusters of a document's vectors, by cosine distance.

    The clusters are chosen without gradient; the gradient to the vectors is that of means of fixed clusters, so what
    makes the vectors is trained through them. The same in training and eval mode. For each document, one after the
    other on the CPU: time O(n^2 d), memory O(n^2). Rows with ties may fill fewer than k slots.

    Source: Clavié, Chaffin, Adams 2024, "Reducing the Footprint of Multi-Vector Retrieval", arXiv:2409.14683; trained
    through in LightOn's LateOn-hpool-regularized (2026). Simplifications: that trains the whole encoder; for a frozen
    one, here is `learned_map`. Give unit vectors to get sentence-transformers' results: a mean counts longer vectors
    more.

    Args:
        learned_map: multiply the vectors by a learned matrix [d, d], the identity at first, before all else; `values`
            are then of the space of `map(hidden_states)`, and in late interaction queries need it too.
    """

    def __init__(self, hidden_size: int, k: int, learned_map: bool = False):
        super().__init__()
        self.k = k
        self.map = nn.Linear(hidden_size, hidden_size, bias=False) if learned_map else nn.Identity()
        if learned_map:
            nn.init.eye_(self.map.weight)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        vectors = self.map(hidden_states)
        slots = torch.full(mask.shape, -1, device=mask.device)
        for row, real in enumerate(mask):
            slots[row, real] = ward(vectors[row, real], self.k)
        return mean_of_slots(vectors, slots, self.k)


class AttentionGuidedClusters(nn.Module):
    """The k most salient tokens are centroids, and every other token joins the one that it is most like.

    A token's saliency is the mean over learned queries of `softmax_i(q h_i)`; a slot is the mean of its tokens,
    weighted by saliency; likeness is the cosine. The queries learn through these weights alone, not through the choice
    of centroids. The same in training and eval mode. With q queries, time O((q + k) n d), memory O((q + k) n),
    parameters q d.

    Source: Qin et al. 2026, "Multi-Vector Index Compression in Any Modality" (AGC), arXiv:2602.21202. Simplification:
    its queries are tokens that pass through the encoder, and saliency is the attention of all heads in its last
    layer; here they attend once, with one head, to what the encoder gave.

    Args:
        queries: q; None: k of them.
    """

    def __init__(self, hidden_size: int, k: int, queries: int | None = None):
        super().__init__()
        self.k = k
        self.queries = nn.Linear(hidden_size, k if queries is None else queries, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        padding = ~mask.unsqueeze(-1)
        logits = self.queries(hidden_states).masked_fill(padding, -torch.inf)  # [B, n, q]
        shares = logits.log_softmax(1).masked_fill(padding, 0)
        saliency = shares.logsumexp(-1) - math.log(logits.shape[-1])  # its logarithm [B, n]
        hard = hard_topk(hidden_states.detach(), saliency, self.k, mask=mask)
        assert hard.slots is not None
        units, centroids = F.normalize(hidden_states.detach(), dim=-1), F.normalize(hard.values, dim=-1)
        nearest = (units @ centroids.transpose(1, 2)).masked_fill(~hard.mask.unsqueeze(1), -torch.inf).argmax(-1)
        slots = torch.where(hard.slots < 0, nearest, hard.slots).masked_fill(~mask, -1)
        index = slots.clamp(min=0)
        parts = (saliency - hard.scores.gather(1, index)).masked_fill(~mask, -torch.inf).exp()  # of the centroid's
        total = parts.new_zeros(hard.scores.shape).scatter_add(1, index, parts)
        weights = parts / total.gather(1, index).clamp(min=1)
        assignment = Assignment.of(weights, slots, hard.mask)
        return TopK.of(assignment.pool(hidden_states), hard.scores, assignment)
