"""A learned linear map from the places of a document to k vectors."""

from torch import Tensor, nn

from shtopk import Assignment, TopK


class LinearMap(nn.Module):
    """Slot j is `sum_i W[j, i] h_i`, where i is a token's place in its document: a matrix that knows no content.

    The same in training and eval mode. Time O(k n d), memory O(k n), parameters k M for at most M tokens; those from
    the (M + 1)-th on are not read. A row of fewer than k real tokens fills all slots, as each mixes all tokens.

    Source: MacAvaney, Mallia, Tonellotto 2025, "Efficient Constant-Space Multi-Vector Retrieval" (ConstBERT),
    arXiv:2504.01818. Simplification: its map takes all M d numbers to k d, M k d^2 parameters, 2.4 billion for
    M = 512, k = 32 and d = 384; here it is one over places, shared by all dimensions.

    Args:
        tokens: M, the longest document.
    """

    def __init__(self, hidden_size: int, k: int, tokens: int = 512):
        super().__init__()
        self.map = nn.Linear(tokens, k, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> TopK:
        place = mask.cumsum(-1) - 1
        read = (mask & (place < self.map.in_features)).unsqueeze(1)  # [B, 1, n]
        weights = self.map.weight[:, place.clamp(0, self.map.in_features - 1)].transpose(0, 1)  # [B, k, n]
        weights = weights.masked_fill(~read, 0)
        filled = mask.any(-1, keepdim=True).expand(weights.shape[:2])
        heaviest = weights.detach().masked_fill(~read, -float("inf")).argmax(-1).masked_fill(~filled, 0)
        assignment = Assignment(weights, None, filled, heaviest)
        return TopK.of(assignment.pool(hidden_states), weights.new_zeros(filled.shape), assignment)
