"""Select and merge: k tokens lead, by score and unlikeness, and every other token joins the one it is most like."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk import backends, compiled, onnx
from shtopk.assignment import Assignment
from shtopk.backends import Answer, clusters
from shtopk.candidates import bounded, candidates, logits_of
from shtopk.topk import TopK
from shtopk.tracing import form


def select_and_merge_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    keep_order: bool = False,
) -> TopK:
    r"""Pool n vectors to k clusters around vectors of high scores that are unlike each other.

    With the logits `l = s / T` and the cosine of two vectors as their similarity:

    1. *Select.* Of the 4 k tokens of the highest logits k become leaders, one after the other: first the best; then,
       each time, the one with the largest `l + log(1 - c)`, where c is its similarity to the leader it is most like.
       So a token near a leader has to score much higher to lead as well. This is the rule of k-means++ with exp(l) as
       mass, made greedy.
    2. *Merge.* Every other token joins the leader it is most like.
    3. *Weigh.* Within a slot the weights are the softmax of the logits.

    It is made for scores that a tournament has taught: `TopKPooling` trains by `successive_halving_topk`, and pools by
    this in eval mode. A tournament pairs tokens by rank whatever they say, which teaches the scorer; here tokens that
    say the same are pooled together, so less is lost.

    As T falls to 0, the result becomes that of `hard_topk`. With equal scores it is a greedy k-means of directions,
    whose leaders are among the first 4 k tokens. A token that weighs less than the scores' rounding error is left out.

    The gradient is exact where no token changes its slot: it flows through the weights and the values, and which token
    goes where has none. O(n k d) time, and O(n + k d) memory beside the values.

    Args:
        values: [*, n, d] the vectors to pool; n >= 1, any leading dimensions.
        scores: [*, n] how much each token is wanted, no NaN, which is looked for by `TopKPooling` alone.
        k: slots, >= 1; with fewer than k real tokens the remaining slots are empty.
        mask: [*, n] nonzero for a real token; None: all are real. Masked tokens get weight and gradient 0.
        temperature: T > 0, in units of the scores; small is hard.
        keep_order: put the slots in document order instead of in the order in which their leaders were chosen.

    Returns:
        TopK: pooled vectors, scores, mask, positions and assignment.

    Raises:
        ValueError: shapes that do not fit, k < 1, or temperature <= 0.

    Example:
        >>> values = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> out = select_and_merge_topk(values, torch.tensor([2.0, 1.9, 1.0, 0.9]), k=2)
        >>> out.slots  # the second best joins the best, which it is like
        tensor([0, 0, 1, 1])

    Source: this library's. The rule of selection follows Arthur and Vassilvitskii 2007, "k-means++".
    """
    given = candidates(values, scores, k, mask, temperature)
    every = bounded(given.scores, given.mask)
    run = form(_SelectAndMerge.apply, compiled.select_and_merge, onnx.select_and_merge)
    answer = Answer(*run(given.values, every, logits_of(every, given.temperature), given.k))
    assignment = Assignment(answer.weights, answer.slots, answer.mask, answer.positions)
    out = TopK.of(answer.values, answer.scores.to(scores.dtype), assignment).unflatten(given.batch)
    return out.in_order() if keep_order else out


class _SelectAndMerge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, scores, logits, k):
        ctx.backend = backends.pick(values, scores)
        answer, saved = ctx.backend.merge(values, scores, logits, k)
        ctx.save_for_backward(scores, answer.weights, answer.slots, *saved)
        ctx.mark_non_differentiable(answer.mask, answer.positions, answer.slots)
        return tuple(answer)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_values, grad_scores, _mask, _positions, grad_weights, _slots):
        scores, weights, slots, *saved = ctx.saved_tensors
        of_values, of_weights = ctx.backend.pool_backward(tuple(saved), grad_values, ctx.needs_input_grad[0], True)
        grad_weights = grad_weights + of_weights
        return of_values, *clusters.score_gradients(scores, weights, slots, grad_weights, grad_scores), None
