"""Another teacher for the same scorer: the attention that the encoder itself pays to its tokens."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn

from shtopk.models import encode_in_windows


def attention_loss(scores: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """KL(attention || softmax(scores)) over the real tokens, the mean of the rows: what the scorer learns from.

    Time and memory O(n). Scores, attention and mask are [B, n]; attention is scaled to sum to 1 over the real tokens,
    and rows without any are left out.

    Source: DeepSeek-V3.2 (2025) trains its indexer so, by the attention of the layer that the indexer serves.
    """
    paid = attention.masked_fill(~mask, 0)
    total = paid.sum(-1, keepdim=True)
    taught = (total > 0).squeeze(-1)
    paid = paid[taught] / total[taught]
    log_shares = scores.masked_fill(~mask, -torch.inf)[taught].log_softmax(-1).masked_fill(~mask[taught], 0)
    divergence = (torch.xlogy(paid, paid) - paid * log_shares).sum(-1)
    return divergence.sum() / taught.sum().clamp(min=1)


@torch.no_grad()
def paid_attention(
    encoder: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    layer: int = -1,
    by: Literal["cls", "all"] = "cls",
    window: int = 512,
) -> Tensor:
    """The attention [B, n] that a layer pays to each token: by the first token, or on average by all, over the heads.

    It costs a pass through the encoder whose attention is written out: time O(n s d) and memory O(n s) for each layer
    and head, with windows of s tokens. A document longer than the window is encoded window by window; each has a first
    token, and its attention counts in proportion to its tokens.

    Args:
        encoder: of transformers, loaded with `attn_implementation="eager"`.
        layer: of the encoder; -1: the last.
    """
    if encoder.config._attn_implementation != "eager":
        raise ValueError(
            f'expected an encoder with attn_implementation="eager", which returns its attention, '
            f"got {encoder.config._attn_implementation!r}"
        )

    def as_vectors(input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """The attention in place of the token vectors, of d = 1."""
        out = encoder(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
        heads = out.attentions[layer].float().mean(1)  # [W, s, s]: from, to
        real = (attention_mask != 0).float()
        payers = real / real.sum(-1, keepdim=True).clamp(min=1)
        if by == "cls":  # the first real token, wherever the padding stands
            payers = torch.zeros_like(real).scatter(1, real.argmax(-1, keepdim=True), 1)
        paid = (payers.unsqueeze(1) @ heads).squeeze(1) * real.sum(-1, keepdim=True)
        return SimpleNamespace(last_hidden_state=paid.unsqueeze(-1))

    paid = encode_in_windows(as_vectors, input_ids, attention_mask, window).squeeze(-1)  # type: ignore[arg-type]
    paid = paid.masked_fill(attention_mask == 0, 0)
    return paid / paid.sum(-1, keepdim=True).clamp(min=torch.finfo(paid.dtype).tiny)


def teach(
    scorer: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]], learning_rate: float = 1e-2
) -> list[float]:
    """Train a scorer by the attention alone, one update a batch; returns the losses.

    Args:
        scorer: token vectors [B, n, d] -> [B, n, 1] or [B, n], such as `TopKPooling.scorer`.
        batches: (hidden_states [B, n, d], attention [B, n], mask [B, n] bool).
    """
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=learning_rate, weight_decay=0.0)
    losses = []
    for hidden_states, attention, mask in batches:
        loss = attention_loss(scorer(hidden_states).view(mask.shape), attention, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
