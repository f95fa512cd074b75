"""What training-free ways to choose what is kept of a prompt share: scores that know the mask, and a hard top-k."""

import torch
from torch import Tensor

from shtopk import TopK, TopKPooling, hard_topk

FIRST = (0,)  # what pool_decoder always keeps, too: attention goes there when it has nothing to look at


class WithoutScorer(TopKPooling):
    """A way that learns nothing, to stand in `prompt_pooling` of a model that `pool_decoder` was called on.

    Args:
        hidden_size: d, the size of the vectors.
        k: slots, the first token's included.
    """

    def __init__(self, hidden_size: int, k: int):
        super().__init__(hidden_size, k, operator="hard", scorer=torch.nn.Identity(), protected=FIRST)

    def choose(self, vectors: Tensor, mask: Tensor, slots: int) -> TopK:
        """Pool vectors [B, n, d] to so many slots; mask [B, n] is True for a token."""
        raise NotImplementedError

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        k: int | float | None = None,
        counted: Tensor | None = None,
    ) -> TopK:
        batch_and_n = hidden_states.shape[:2]
        mask = torch.ones(batch_and_n, device=hidden_states.device) if attention_mask is None else attention_mask
        real = mask != 0
        out = self.choose(hidden_states, real, slots_of_every_row(self, real, k))
        return TopK.of(out.values, out.scores, out.assignment, mask.dtype)


class HardChoice(WithoutScorer):
    """Keep the k tokens with the highest scores, and the first token always.

    Its scores come from `scores` and not from a scorer, which could not tell tokens from padding.
    """

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        """Scores [B, n] of vectors [B, n, d]; mask [B, n] is True for a token. They get no gradient."""
        raise NotImplementedError

    def choose(self, vectors: Tensor, mask: Tensor, slots: int) -> TopK:
        with torch.no_grad():
            scores = self.scores(vectors.masked_fill(~mask.unsqueeze(-1), 0), mask, slots)
        scores = scores.float().masked_fill(first_token(mask), torch.inf)
        return hard_topk(vectors, scores, slots, mask=mask, keep_order=True)


def first_token(mask: Tensor) -> Tensor:
    """[B, n] True at the first token of each row of mask [B, n]."""
    return mask & (mask.cumsum(-1) == 1)


def slots_of_every_row(pooling: TopKPooling, mask: Tensor, k: int | float | None) -> int:
    """How many slots rows get where all get as many.

    Raises:
        ValueError: k is a share.
    """
    k = pooling.current_k if k is None else k
    if isinstance(k, float):
        raise ValueError(f"expected k of {type(pooling).__name__} to be a whole number, got the share {k}")
    return pooling.slots_for(mask.shape[1], k)
