"""Hard top-k, and two ways to let its scores learn."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.candidates import bounded, candidates, logits_of
from shtopk.slots import pool_by_slot
from shtopk.topk import TopK

Gradient = Literal["none", "gate", "straight_through"]
GRADIENTS = get_args(Gradient)  # once: torch.compile of torch 2.6 cannot trace get_args


def hard_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    gradient: Gradient = "none",
    temperature: float | Tensor = 1.0,
    keep_order: bool = False,
) -> TopK:
    """Keep the k vectors of the highest scores and drop the others: `torch.topk` and a gather.

    A hard choice has no gradient of its own. `gradient` says what the scores learn from instead, with s for a score
    and T for the temperature:

    - `"none"`: the scores get no gradient from the pooled vectors;
    - `"gate"`: each kept vector is multiplied by `sigmoid(s / T)`, so weights lie in (0, 1) and do not sum to 1;
    - `"straight_through"`: forward as with `"none"`, but for rounding. The gradient is that of multiplying each kept
      vector by its share in `softmax(s / T)` over all real tokens, so the score of every real token learns. Source of
      the idea: Bengio, Léonard, Courville 2013.

    The pooled scores are the scores of the tokens kept, and differentiable in every form.

    Args:
        values: [*, n, d] the vectors to choose from.
        scores: [*, n] how much each token is wanted, no NaN, which is looked for by `TopKPooling` alone.
        k: slots, >= 1; with fewer than k real tokens the remaining slots are empty.
        mask: [*, n] nonzero for a real token; None: all are real.
        gradient: one of the three above.
        temperature: T > 0, in units of the scores; of no effect with `"none"`.
        keep_order: put the slots in document order instead of by falling score.

    Returns:
        TopK: the vectors kept, their scores, mask, positions and assignment.

    Raises:
        ValueError: shapes that do not fit, k < 1, temperature <= 0, or an unknown gradient.

    Example:
        >>> hard_topk(torch.eye(4), torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2).values
        tensor([[0., 1., 0., 0.],
                [0., 0., 0., 1.]])
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"expected gradient to be one of {', '.join(GRADIENTS)}; got {gradient!r}")
    given = candidates(values, scores, k, mask, temperature)
    every = bounded(given.scores, given.mask)
    kept, positions, slots = _best(every, given.k)
    if gradient == "gate":
        weights = torch.sigmoid(logits_of(every, given.temperature))
    elif gradient == "straight_through":
        nothing = (every == -torch.inf).all(-1, keepdim=True)
        soft = logits_of(every, given.temperature).masked_fill(nothing, 0).softmax(-1)
        weights = 1 + soft - soft.detach()
    else:
        weights = torch.ones_like(every)
    weights = weights.masked_fill(slots < 0, 0)
    filled = kept > -torch.inf
    out = TopK.of(
        values=pool_by_slot(given.values, weights, slots, given.k),
        scores=kept.masked_fill(~filled, 0).to(scores.dtype),
        assignment=Assignment(weights, slots, filled, positions.masked_fill(~filled, 0)),
    ).unflatten(given.batch)
    return out.in_order() if keep_order else out


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k highest of scores [B, n], falling, and their positions, [B, k] both; and the slot [B, n] of each token.

    Scores are -inf where there is no token.
    """
    n = scores.shape[1]
    if torch.onnx.is_in_onnx_export() or n < k:  # a graph in ONNX is to serve every n
        scores = F.pad(scores, (0, k), value=-torch.inf)
    kept, positions = scores.topk(k, -1)
    slots = torch.full(scores.shape, -1, device=kept.device)
    slots = slots.scatter(-1, positions, torch.arange(k, device=kept.device).expand_as(positions))
    return kept, positions, slots.masked_fill(scores == -torch.inf, -1)[:, :n]
