"""A head that copies: the decoder points at pooled vectors, and through them at the tokens that they are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CopyHead(nn.Module):
    r"""Mix what the decoder wants to say with what stands in the document.

    .. math:: p(w) = g \, p_\text{decoder}(w) + (1 - g) \sum_{i: x_i = w} a_{s(i)} \, \omega_i

    where a is the attention of a decoder state over the k slots, s(i) the slot of token i and :math:`\omega_i` its
    share in there. So a model whose decoder sees k vectors can still copy any token that one of them is made of.

    Args:
        decoder_size, encoder_size: sizes of the vectors of both.

    Source: See, Liu and Manning 2017, "Get To The Point: Summarization with Pointer-Generator Networks", section 2.2;
    pointing through pooled slots is this library's.
    """

    def __init__(self, decoder_size: int, encoder_size: int):
        super().__init__()
        self.query = nn.Linear(decoder_size, encoder_size, bias=False)
        self.gate = nn.Linear(decoder_size, 1)

    def forward(self, logits: Tensor, states: Tensor, encoded) -> Tensor:
        """Log-probabilities [B, T, V] from the decoder's logits [B, T, V] and states [B, T, d].

        encoded: the `PooledEncoderOutput` that the decoder saw, with input_ids [B, L].
        """
        attention, gate = self.point(states, encoded)
        copied = self.through_slots(attention, encoded)
        ids = encoded.input_ids.unsqueeze(1).expand_as(copied)
        said = logits.float().softmax(-1)
        copied = torch.zeros_like(said).scatter_add(-1, ids, copied)
        return torch.lerp(copied, said, gate).clamp(min=torch.finfo(torch.float32).tiny).log()

    def loss(self, logits: Tensor, states: Tensor, encoded, labels: Tensor) -> Tensor:
        """Mean negative log-probability of labels [B, T] (-100: not wanted) under `forward`, without its [B, T, V].

        A vocabulary is large, and a dozen passes over it would be a third of a training step.
        """
        wanted = labels != -100
        said = -functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        attention, gate = self.point(states, encoded)
        here = encoded.input_ids.unsqueeze(1) == labels.unsqueeze(-1)  # [B, T, L]
        copied = (self.through_slots(attention, encoded) * here).sum(-1)
        probability = torch.lerp(copied, said.float().exp(), gate.squeeze(-1))
        each = probability.clamp(min=torch.finfo(torch.float32).tiny).log()
        return -(each * wanted).sum() / wanted.sum()

    def point(self, states: Tensor, encoded) -> tuple[Tensor, Tensor]:
        """(a [B, T, k], which sums to 1 over the slots; g [B, T, 1] in [0, 1]) of decoder states [B, T, d]."""
        vectors = encoded.last_hidden_state
        pointing = self.query(states) @ vectors.transpose(1, 2) / vectors.shape[-1] ** 0.5
        empty = encoded.attention_mask.unsqueeze(1) == 0
        attention = pointing.float().masked_fill(empty, torch.finfo(torch.float32).min).softmax(-1)
        gate = self.gate(states).float().sigmoid()
        # A document of no token has nothing to copy.
        return attention, torch.where(encoded.attention_mask.any(-1).view(-1, 1, 1), gate, 1)

    def through_slots(self, attention: Tensor, encoded) -> Tensor:
        """Attention over the tokens [B, T, L] that an attention over the slots [B, T, k] amounts to."""
        assignment = encoded.assignment
        # float again: autocast multiplies in half precision
        return assignment._replace(weights=assignment.weights.float()).unpool(attention).float()
