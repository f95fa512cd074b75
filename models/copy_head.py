"""The copy head: the decoder points at pooled vectors, and through them at the tokens pooled into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CopyHead(nn.Module):
    """Let a decoder that sees only k vectors copy every token that was pooled into them.

    The probability of a word w is `p(w) = g * p_decoder(w) + (1 - g) * p_copy(w)`. Here g in [0, 1] is a gate, and
    `p_copy(w)` is the sum of `a[s(i)] * weight[i]` over all tokens i of the document that are w. The attention of the
    decoder state over the k slots is a, the slot of token i is s(i), and `weight[i]` is its share in that slot.

    Args:
        decoder_size: of the decoder's vectors.
        encoder_size: of the encoder's vectors.

    Source: See, Liu and Manning 2017, "Get To The Point: Summarization with Pointer-Generator Networks", section 2.2;
    pointing through pooled slots is this library's.
    """

    def __init__(self, decoder_size: int, encoder_size: int):
        super().__init__()
        self.query = nn.Linear(decoder_size, encoder_size, bias=False)
        self.gate = nn.Linear(decoder_size, 1)

    def forward(self, logits: Tensor, states: Tensor, encoded) -> Tensor:
        """The log-probabilities [B, T, V] of the next words.

        Args:
            logits: [B, T, V] of the decoder.
            states: [B, T, d] of the decoder.
            encoded: the `PooledEncoderOutput` that the decoder saw, with input_ids [B, L].
        """
        attention, gate = self.point(states, encoded)
        copied = self.through_slots(attention, encoded)
        ids = encoded.input_ids.unsqueeze(1).expand_as(copied)
        generated = logits.float().softmax(-1)
        copied = torch.zeros_like(generated).scatter_add(-1, ids, copied)
        return torch.lerp(copied, generated, gate).clamp(min=torch.finfo(torch.float32).tiny).log()

    def loss(self, logits: Tensor, states: Tensor, encoded, labels: Tensor) -> Tensor:
        """The mean negative log-probability of labels [B, T] under `forward`; a label of -100 is ignored.

        It works out the probabilities of the labels alone, since a dozen passes over [B, T, V] would be a third of a
        training step.
        """
        counted = labels != -100
        generated = -functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        attention, gate = self.point(states, encoded)
        equal = encoded.input_ids.unsqueeze(1) == labels.unsqueeze(-1)  # [B, T, L]
        copied = (self.through_slots(attention, encoded) * equal).sum(-1)
        probability = torch.lerp(copied, generated.float().exp(), gate.squeeze(-1))
        log_likelihood = probability.clamp(min=torch.finfo(torch.float32).tiny).log()
        return -(log_likelihood * counted).sum() / counted.sum()

    def point(self, states: Tensor, encoded) -> tuple[Tensor, Tensor]:
        """Where a decoder in states [B, T, d] points.

        Returns:
            Attention over the slots [B, T, k], which sums to 1, and the gate g [B, T, 1] in [0, 1].
        """
        vectors = encoded.last_hidden_state
        pointing = self.query(states) @ vectors.transpose(1, 2) / vectors.shape[-1] ** 0.5
        empty = encoded.attention_mask.unsqueeze(1) == 0
        attention = pointing.float().masked_fill(empty, torch.finfo(torch.float32).min).softmax(-1)
        gate = self.gate(states).float().sigmoid()
        # A document without tokens has nothing to copy.
        return attention, torch.where(encoded.attention_mask.any(-1).view(-1, 1, 1), gate, 1)

    def through_slots(self, attention: Tensor, encoded) -> Tensor:
        """Hand attention over the slots [B, T, k] on to the tokens, [B, T, L]."""
        assignment = encoded.assignment
        # float twice: autocast multiplies in half precision
        return assignment._replace(weights=assignment.weights.float()).unpool(attention).float()
