"""What the last tokens pay attention to."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.hard_choice import HardChoice
from rivals.heads import LlamaHeads

WINDOW, SMOOTHED = 64, 5


class SnapKV(HardChoice):
    """The tokens that the last 64 of the part to be pooled pay most attention to, and these themselves.

    Scores are the means of the attention over these queries, over 5 neighbouring tokens, and over heads: one choice
    for all heads and all layers above, where the paper lets each head of each layer choose. The window takes half of
    the slots at most, or with few of them nothing else would be kept. Positions are counted within the part, which is
    right for parts in one piece. Time O(w n d) for a window of w, and O(n d²) for the keys; memory O(h w n).

    Source: Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv:2404.14469, with
    kvpress's window and smoothing; like kvpress it sees no question that comes later.
    """

    def __init__(self, heads: LlamaHeads, hidden_size: int, k: int):
        super().__init__(hidden_size, k)
        self.heads = heads

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        window = max(1, min(WINDOW, slots // 2))
        place = mask.cumsum(-1) - 1
        count = mask.sum(-1, keepdim=True)
        index = count - window + torch.arange(window, device=mask.device)  # rows begin with their tokens
        index = index.clamp(min=0)
        queries = self.heads.queries(vectors.gather(1, index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1])))
        paid = attention(self.heads, queries, index, vectors, place.clamp(min=0), mask)
        last = mask & (place >= count - window)
        return smoothed(paid, mask & ~last).masked_fill(last, torch.inf)


class SnapKVOfQuestion(HardChoice):
    """The tokens that the end of the prompt, which is kept whole, pays most attention to: a question.

    As `SnapKV`, but the window lies behind the part to be pooled: it is the last `keep_last` tokens of the prompt. So
    it is in the paper, too. What is kept serves one question, which must be known when the prompt is read. The prompt
    must end where the input does, as it does where something is generated: in training the end of the input is the
    answer, and would be looked at. The part to pool is one, and stands before the window.

    Args:
        model: whose prompts are pooled.
        heads: of the layer.
        hidden_size, k: see `HardChoice`.
        window: tokens.

    Attributes:
        handles: of the hooks on the model and the layer, by which it looks; they are to be removed with it.
    """

    def __init__(self, model: nn.Module, heads: LlamaHeads, hidden_size: int, k: int, window: int):
        super().__init__(hidden_size, k)
        self.heads, self.window = heads, window
        self.question: Tensor | None = None  # [B, window, d]
        self.labelled = False
        self.handles = [
            model.register_forward_pre_hook(self.begin, with_kwargs=True),
            heads.layer.register_forward_pre_hook(self.look, with_kwargs=True, prepend=True),
        ]

    def begin(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Runs before the model."""
        self.labelled = kwargs.get("labels") is not None

    def look(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Runs before the layer, and before its vectors are pooled."""
        vectors = args[0] if args else kwargs["hidden_states"]
        self.question = vectors[:, -self.window :].detach()

    def scores(self, vectors: Tensor, mask: Tensor, slots: int) -> Tensor:
        if self.training or self.labelled:
            raise ValueError("SnapKV looks for the question where the input ends; expected eval mode and no labels")
        assert self.question is not None
        if len(self.question) != len(vectors):
            raise ValueError(f"expected one part to pool in each prompt, got {len(vectors)} in {len(self.question)}")
        place = (mask.cumsum(-1) - 1).clamp(min=0)
        behind = mask.sum(-1, keepdim=True) + torch.arange(self.window, device=mask.device)
        both = torch.cat([vectors, self.question], 1), torch.cat([place, behind], 1)
        seen = torch.cat([mask, torch.ones_like(behind, dtype=torch.bool)], 1)
        paid = attention(self.heads, self.heads.queries(self.question), behind, *both, seen)
        return smoothed(paid[:, : mask.shape[1]], mask)


def attention(heads: LlamaHeads, queries: Tensor, at: Tensor, vectors: Tensor, place: Tensor, mask: Tensor) -> Tensor:
    """[B, n] the attention that vectors [B, n, d] get, a mean over heads and queries.

    Args:
        heads: of the layer.
        queries: [B, h, w, e].
        at: [B, w] their places.
        vectors: [B, n, d] of the tokens.
        place: [B, n] where these stand.
        mask: [B, n] True for a token.
    """
    queries = heads.turned(queries, at)
    keys = heads.for_queries(heads.turned(heads.keys(vectors), place))
    logits = queries @ keys.transpose(2, 3) * heads.layer.self_attn.scaling  # [B, h, w, n]
    seen = (place.unsqueeze(1) <= at.unsqueeze(2)) & mask.unsqueeze(1)
    return logits.float().masked_fill(~seen.unsqueeze(1), torch.finfo(torch.float32).min).softmax(-1).mean((1, 2))


def smoothed(paid: Tensor, mask: Tensor) -> Tensor:
    """[B, n] the sum over neighbours, of which those that the mask [B, n] leaves out count 0, by their number."""
    return F.avg_pool1d((paid * mask).unsqueeze(1), SMOOTHED, 1, SMOOTHED // 2).squeeze(1)
