"""What queries to come are expected to pay attention to."""

import torch
from torch import Tensor

from rivals.hard_choice import HardChoice
from rivals.heads import LlamaHeads, turn

FUTURE, SINKS = 512, 4


class ExpectedAttention(HardChoice):
    """The tokens that later queries are expected to pay most attention to, if they are drawn like the prompt's own.

    A normal distribution of queries is fitted to each head, and turned by the mean over the next 512 positions. A
    token's logit under it has a mean m and a variance v, its attention is the softmax of m + v / 2, and its score that
    times the norm of its value, a mean over heads: one choice for all heads and all layers above, where the paper
    lets each head of each layer choose. The first 4 tokens are kept and left out of all sums. Time O(n d²) for
    queries, keys and values, O(n d e) with heads of size e for the variances, memory O(n d + d e).

    Source: Devoto, Jeblick, Jégou 2025, "Expected Attention: KV Cache Compression by Estimating Attention from Future
    Queries Distribution", arXiv:2510.00636, with kvpress's settings.
    """

    def __init__(self, heads: LlamaHeads, hidden_size: int, k: int):
        super().__init__(hidden_size, k)
        self.heads = heads

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        place = mask.cumsum(-1) - 1
        used = (mask & (place >= SINKS)).float()
        mean, covariance = self._later_queries(vectors, used, mask.sum(-1, keepdim=True))
        keys = self.heads.for_queries(self.heads.turned(self.heads.keys(vectors), place.clamp(min=0))).float()
        scaling = self.heads.layer.self_attn.scaling
        logits = torch.einsum("bhne,bhe->bhn", keys, mean) * scaling
        logits = logits + ((keys @ covariance) * keys).sum(-1) * scaling**2 / 2
        left_out = (used == 0).unsqueeze(1)
        expected = logits.masked_fill(left_out, torch.finfo(torch.float32).min).softmax(-1)
        norms = self.heads.for_queries(self.heads.values(vectors)).float().norm(dim=-1)
        return (expected * norms).mean(1).masked_fill(place < SINKS, torch.inf)

    def _later_queries(self, vectors: Tensor, used: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [B, h, e] and covariance [B, h, e, e] of queries behind a prompt of count [B, 1] tokens."""
        queries = self.heads.queries(vectors).float()
        share = (used / used.sum(-1, keepdim=True).clamp(min=1)).view(len(used), 1, -1, 1)
        mean = (queries * share).sum(2)
        centred = queries - mean.unsqueeze(2)
        covariance = (centred * share).transpose(2, 3) @ centred
        positions = count + torch.arange(FUTURE, device=count.device)
        cos, sin = (x.float().mean(1, keepdim=True) for x in self.heads.turns(queries, positions))  # [B, 1, e]
        covariance = turn(covariance, cos.unsqueeze(1), sin.unsqueeze(1)).transpose(2, 3)
        return turn(mean, cos, sin), turn(covariance, cos.unsqueeze(1), sin.unsqueeze(1))
