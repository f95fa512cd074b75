"""The beginning and the end of a prompt."""

import torch
from torch import Tensor

from rivals.hard_choice import HardChoice

SINKS = 4


class FirstAndLast(HardChoice):
    """The first 4 tokens and the last k - 4. Time and memory O(n).

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453, the window
    and the sinks. Difference: the paper lets the positions of what is kept close up, here they stay.
    """

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        place = mask.cumsum(-1)  # from 1 on
        return place.float().masked_fill(place <= SINKS, torch.inf)
