"""Which vectors of a prompt flowed into which slots, and what a whole pass made of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.integrations.decoders.state import asking


class Flow(NamedTuple):
    """Which of the m vectors of a prompt went where, as one pooling did it.

    Attributes:
        inside: the assignment of the p vectors of each region to its slots, [B * R, p] to [B * R, k]; None: each of
            them is a slot.
        index: [B * R, p] the numbers of these vectors among the m.
        there: [B * R, p] bool, False: no vector.
        kept: [B, q] the numbers of the vectors that were kept whole.
        whole: [B, q] bool, False: no vector.
        order: [B, t] the order of slots and kept vectors by their places.
        size: m.
    """

    inside: Assignment | None
    index: Tensor
    there: Tensor
    kept: Tensor
    whole: Tensor
    order: Tensor
    size: int

    def assignment(self) -> Assignment:
        """The assignment of the m vectors to the t that came out."""
        inside = Assignment.of_every_token(self.there, torch.float32) if self.inside is None else self.inside
        batch, k = len(self.kept), inside.mask.shape[1]
        regions = len(self.there) // batch
        slots = regions * k
        row = torch.arange(batch, device=self.kept.device).repeat_interleave(regions)
        numbers = torch.arange(slots, device=self.kept.device).view(regions, k).repeat(batch, 1)
        pieces = self.there.nonzero(as_tuple=True)
        tokens = (row[pieces[0]], self.index[pieces])
        found = inside.reassemble(pieces, tokens, numbers, row, (batch, self.size, slots + self.kept.shape[1]))
        at, number = self.whole.nonzero(as_tuple=True)
        token, number, one = self.kept[at, number], number + slots, found.weights.new_ones(())
        if found.slots is None:
            weights, assigned = found.weights.index_put((at, number, token), one), None
        else:
            weights = found.weights.index_put((at, token), one)
            assigned = found.slots.index_put((at, token), number)
        mask = found.mask.index_put((at, number), found.mask.new_ones(()))
        positions = found.positions.index_put((at, number), token)
        return Assignment(weights, assigned, mask, positions).reorder(self.order)


@contextmanager
def record_assignments() -> Iterator[list[Assignment]]:
    """A context in which pooled language models say which tokens of their prompts were kept, in this thread.

    Yields:
        A list that gets an `Assignment` for each prompt that is read: of its n tokens, padding among them, to the
        vectors that the layers above the last pooling see. Tokens that are kept whole are alone in their slots. The
        `positions` are the columns in which the vectors stand, and the `mask` says where there is a vector. A prompt
        that passes unchanged has each token in a slot of its own. With beams a row stands in it for each beam.
        Prompts of one token, models that are unpooled, and `read_prompt` add nothing.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from shtopk.integrations.decoder import pool_decoder, record_assignments
        >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2)
        >>> lm = pool_decoder(LlamaForCausalLM(config).eval(), {2: 8})
        >>> with record_assignments() as found:
        ...     answer = lm.generate(torch.arange(100, 140).unsqueeze(0), max_new_tokens=2, pad_token_id=0)
        >>> kept = found[0].positions  # of 40 tokens; the first and the last are always among them
        >>> kept.shape, kept[0, 0].item(), kept[0, -1].item()
        (torch.Size([1, 9]), 0, 39)
    """
    found: list[Assignment] = []
    with asking(record=found):
        yield found
