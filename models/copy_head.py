"""A copy head: the decoder points at pooled vectors, and through them at the tokens pooled into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CopyHead(nn.Module):
    r"""Mix the decoder's distribution over the vocabulary with one over the document's tokens.

    .. math:: p(w) = g \, p_\text{decoder}(w) + (1 - g) \sum_{i: x_i = w} a_{s(i)} \, \omega_i

    where a is the attention of a decoder state over the k slots, s(i) the slot of token i and :math:`\omega_i` its
    weight there. So a decoder that sees k vectors alone can still copy every token pooled into them.

    Args:
        decoder_size, encoder_size: sizes of the decoder's and the encoder's vectors.

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
        generated = logits.float().softmax(-1)
        copied = torch.zeros_like(generated).scatter_add(-1, ids, copied)
        return torch.lerp(copied, generated, gate).clamp(min=torch.finfo(torch.float32).tiny).log()

    def loss(self, logits: Tensor, states: Tensor, encoded, labels: Tensor) -> Tensor:
        """Mean negative log-probability of labels [B, T] (-100: ignored) under `forward`, without the [B, T, V].

        A dozen passes over a large vocabulary would be a third of a training step.
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
        """(a [B, T, k], which sums to 1 over the slots; g [B, T, 1] in [0, 1]) of decoder states [B, T, d]."""
        vectors = encoded.last_hidden_state
        pointing = self.query(states) @ vectors.transpose(1, 2) / vectors.shape[-1] ** 0.5
        empty = encoded.attention_mask.unsqueeze(1) == 0
        attention = pointing.float().masked_fill(empty, torch.finfo(torch.float32).min).softmax(-1)
        gate = self.gate(states).float().sigmoid()
        # A document without tokens has nothing to copy.
        return attention, torch.where(encoded.attention_mask.any(-1).view(-1, 1, 1), gate, 1)

    def through_slots(self, attention: Tensor, encoded) -> Tensor:
        """Attention over the slots [B, T, k], as attention over the tokens [B, T, L]."""
        assignment = encoded.assignment
        # float twice: autocast multiplies in half precision
        return assignment._replace(weights=assignment.weights.float()).unpool(attention).float()
