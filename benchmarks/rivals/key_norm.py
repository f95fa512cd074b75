"""Keys of a small norm."""

from torch import Tensor

from rivals.hard_choice import HardChoice
from rivals.heads import LlamaHeads


class KeyNorm(HardChoice):
    """The k tokens whose keys have the smallest norms: these get the most attention, later.

    One choice for all heads and all layers above, by the mean over the heads of this layer, where the paper lets each
    head of each layer choose. Time O(n d²) for the keys, memory O(n d).

    Source: Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
    arXiv:2406.11430.
    """

    def __init__(self, heads: LlamaHeads, hidden_size: int, k: int):
        super().__init__(hidden_size, k)
        self.heads = heads

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        return -self.heads.keys(vectors).float().norm(dim=-1).mean(1)
