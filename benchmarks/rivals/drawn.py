"""Tokens drawn by lot."""

import torch
from torch import Tensor

from rivals.hard_choice import HardChoice


class RandomTokens(HardChoice):
    """The first token and k - 1 others, drawn anew at each call by torch's generator, which `torch.manual_seed` sets.

    Time and memory O(n). No paper: what any other way has to beat.
    """

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        return torch.rand(mask.shape, device=mask.device)
