"""Attention queries: every slot mixes all tokens."""

from torch import Tensor, nn

from shtopk import Assignment, TopK


class AttentionPooling(nn.Module):
    """The rival that chooses nothing: k learned queries, each a softmax over all n tokens.

    `softmax_i(q_j h_i) h_i`, summed over i, is slot j; the same in training and eval mode. Time O(k n d), memory
    O(k n), parameters k d. A row of fewer than k real tokens fills all slots, as each mixes all tokens.

    Source: Lee et al. 2019, "Set Transformer" (pooling by attention). Simplification: one head, no projections.
    """

    def __init__(self, hidden_size: int, k: int):
        super().__init__()
        self.queries = nn.Linear(hidden_size, k, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        real = mask.any(-1, keepdim=True).unsqueeze(-1)  # [B, 1, 1] rows with a token at all
        logits = self.queries(hidden_states).masked_fill(~mask.unsqueeze(-1) & real, -float("inf"))  # [B, n, k]
        weights = (logits.softmax(1) * real).transpose(1, 2)
        filled = real.squeeze(-1).expand(weights.shape[:2])
        assignment = Assignment.of(weights, None, filled)
        return TopK.of(assignment.pool(hidden_states), logits.amax(1).masked_fill(~filled, 0), assignment)
