"""What ours is compared with, as one would write it: Algorithm 2 of the paper, round by round on the vectors, and topk
with a gather."""

import torch
from torch import Tensor


def literal_successive_halving(values: Tensor, scores: Tensor, k: int, temperature: float = 0.0625) -> Tensor:
    """values [B, n, d], scores [B, n] -> [B, k, d]; n / k a power of two; the boost is a softmax."""
    while scores.shape[-1] > k:
        scores, order = scores.sort(dim=-1, descending=True)
        values = values.gather(1, order.unsqueeze(-1).expand_as(values))
        better, worse = scores.chunk(2, -1)
        pairs = torch.stack([better, worse.flip(-1)], -1)  # [B, m / 2, 2]
        weights = (pairs / temperature).softmax(-1)
        scores = (weights * pairs).sum(-1)
        better, worse = values.chunk(2, 1)
        values = weights[..., :1] * better + weights[..., 1:] * worse.flip(1)
    order = scores.argsort(dim=-1, descending=True)
    return values.gather(1, order.unsqueeze(-1).expand_as(values))


def gather(values: Tensor, scores: Tensor, k: int) -> Tensor:
    """Hard top-k as one writes it without a library. The scores learn nothing."""
    best = scores.topk(k, dim=-1).indices
    return values.gather(1, best.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
