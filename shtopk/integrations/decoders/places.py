"""Where the vectors stand that the layers above a pooling remember; all layers up to the next pooling share it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Places:
    """The columns of the vectors in a cache that grows.

    Attributes:
        columns: [B, m] the column in which each vector stands, -1 for none.
        seen: how many columns have been read, pooled or not.
        prompt: how many of them are of the prompt.
        hides: whether the mask of a later pass hid some of the others.
        filled: whether there is a vector at every place.
    """

    seen: Any  # a number, or a tensor where the size is fixed

    def __init__(self, columns: Tensor, seen: int):
        self.columns, self.seen, self.prompt, self.hides = columns, seen, seen, False
        self.filled = bool((columns >= 0).all())

    def follow(self, n: int, real: Tensor | None) -> Tensor:
        """Take note of the next n tokens, before their keys and values come.

        Args:
            n: how many.
            real: [B, n] bool, True for a token; None: all are.

        Returns:
            [B, n] their columns, -1 for padding.
        """
        new = self._new(n, real)
        self.columns = torch.cat([self.columns, new], 1)
        self.seen += n
        self.filled = self.filled and real is None
        return new

    def _new(self, n: int, real: Tensor | None) -> Tensor:
        new = (self.seen + torch.arange(n, device=self.columns.device)).expand(len(self.columns), n)
        return new if real is None else new.masked_fill(~real.to(new.device), -1)

    def shown(self, columns: Tensor, mask: Tensor) -> Tensor:
        """Columns [B, m], -1 also for those that a mask [B, n] of all that was read hides, if they followed."""
        hidden = (columns >= self.prompt) & (mask.to(columns.device).gather(1, columns.clamp(min=0)) == 0)
        return columns.masked_fill(hidden, -1)

    def forget(self, n: int) -> None:
        """Drop the last n tokens."""
        self.columns, self.seen = self.columns[:, :-n], self.seen - n

    def take_rows(self, index: Tensor) -> None:
        """Keep the rows with these numbers, in this order."""
        self.columns = self.columns.index_select(0, index.to(self.columns.device))

    def repeat_rows(self, times: int) -> None:
        """Repeat each row."""
        self.columns = self.columns.repeat_interleave(times, dim=0)


class FixedPlaces(Places):
    """The columns of the vectors in a cache of a fixed size; nothing waits for the device, nothing moves in memory.

    Attributes:
        most: how many columns there is room for.
        held: how many vectors there are in each row.
    """

    def __init__(self, columns: Tensor, seen: int, most: int):
        super().__init__(columns, seen)
        batch, m = columns.shape
        self.most = most
        self.columns = columns.new_full((batch, m + most - seen), -1)
        self.columns[:, :m] = columns
        self.seen, self.held = (torch.tensor(x, device=columns.device) for x in (seen, m))
        self.filled = False
        if not torch.compiler.is_compiling():  # as StaticLayer does, for CUDA graphs
            for buffer in (self.columns, self.seen, self.held):
                torch._dynamo.mark_static_address(buffer)

    def follow(self, n: int, real: Tensor | None) -> Tensor:
        new = self._new(n, real)
        self.columns.index_copy_(1, self.held + torch.arange(n, device=new.device), new)
        self.seen.add_(n)
        self.held.add_(n)
        return new
