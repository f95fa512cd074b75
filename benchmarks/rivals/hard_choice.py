"""What training-free ways to choose what is kept of a prompt share: scores that know the mask, and a hard top-k."""

import torch
from torch import Tensor

from shtopk import TopK, TopKPooling, hard_topk

FIRST = (0,)  # what pool_decoder always keeps, too: attention goes there when it has nothing to look at


class HardChoice(TopKPooling):
    """Keep the k tokens with the highest scores, and the first token always. Nothing is learned.

    A `TopKPooling` to stand in `prompt_pooling` of a model that `pool_decoder` was called on. Its scores come from
    `scores` and not from a scorer, which could not tell tokens from padding.

    Args:
        hidden_size: d, the size of the vectors.
        k: slots, the first token's included.
    """

    def __init__(self, hidden_size: int, k: int):
        super().__init__(hidden_size, k, operator="hard", scorer=torch.nn.Identity(), protected=FIRST)

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        """Scores [B, n] of vectors [B, n, d]; mask [B, n] is True for a token. They get no gradient."""
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
        slots = slots_of_every_row(self, real, k)
        with torch.no_grad():
            scores = self.scores(hidden_states.masked_fill(~real.unsqueeze(-1), 0), real, slots)
        scores = scores.float().masked_fill(first_token(real), torch.inf)
        out = hard_topk(hidden_states, scores, slots, mask=real, keep_order=True)
        return TopK.of(out.values, out.scores, out.assignment, mask.dtype)


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
