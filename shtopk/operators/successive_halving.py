"""The Successive Halving Top-k Operator (Pietruszka, Borchmann, Graliński 2020, arXiv:2010.15552, Algorithm 2).

The paper mixes the vectors themselves, round by round. But the weights of a round depend on scores alone, and every
token flows into exactly one slot: the tournament is a binary tree. So here it is played on the scores; the weights
along a token's path multiply to one weight; and the values are read once, at the end. Beyond the paper:

- any n and k: the ranking is filled up to k * 2^R places with losers whose weight is exactly 0. Padding tokens are
  such losers too, so padding cannot change a result;
- the temperature can be relative to the scores' own spread (`boost="relative"`);
- a token whose weight cannot rise above the scores' rounding error does not play, and is not read
  (backends/tournament.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk import backends, compiled, onnx
from shtopk.assignment import Assignment
from shtopk.backends import Answer, Gradients, Wanted
from shtopk.candidates import candidates
from shtopk.rule import Boost, Rule
from shtopk.topk import TopK
from shtopk.tracing import form


def successive_halving_topk(
    values: Tensor,
    scores: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    boost: Boost = "softmax",
    base: float = 20.0,
    keep_order: bool = False,
) -> TopK:
    """Pool n vectors to the k of the highest scores by a differentiable tournament.

    In each round the candidates are sorted by score, and the i-th best meets the i-th worst. Two with the scores x and
    y, x the higher one, become one candidate: its vector is `w * v_x + (1 - w) * v_y`, and its score is
    `w * x + (1 - w) * y`. Rounds go on until k candidates are left. They are played on scores alone, O(log(n / k)) of
    them, and the values are read once.

    `boost` says how the winner's weight w is made, with T for the temperature:

    - `"softmax"`: `w = sigmoid((x - y) / T)`, the paper's boosted softmax with C = 1 / T. It teaches best where the
      scores are trained through this choice, as they find their own scale.
    - `"relative"`: `w = sigmoid((x - y) / (T * s))`. The spread s is the mean of the k best scores less the mean of
      the k next ones; no gradient flows into it. Scaling or shifting the scores changes nothing, so one temperature
      serves scores of any origin at every n and k: 1/16 is sharp.
    - `"power"`: `w = sigmoid((b^x - b^y) / T)` with the base b, the form of the authors' released code, for scores in
      (0, 1).

    The weights of a slot sum to 1, less what was dropped: at most twice the rounding error of 1, whatever the scores.
    The gradient is exact to the same degree; there is no second derivative. As T falls to 0, the result becomes that
    of `hard_topk`.

    Args:
        values: [*, n, d] the vectors to pool; n >= 1, any leading dimensions.
        scores: [*, n] how much each token is wanted, no NaN, which is looked for by `TopKPooling` alone.
        k: slots, >= 1; with fewer than k real tokens the remaining slots are empty.
        mask: [*, n] nonzero for a real token; None: all are real. Masked tokens get weight and gradient 0.
        temperature: T > 0, a number or a scalar tensor; small is hard. In units of the scores, or of s with
            `boost="relative"`. The value of a tensor is not checked: what is not above 0 is as hard as can be.
        boost: one of the three above.
        base: b > 1, of `"power"`.
        keep_order: put the slots in document order instead of by falling score.

    Returns:
        TopK: pooled vectors, scores, mask, positions and assignment.

    Raises:
        ValueError: shapes that do not fit, k < 1, a number <= 0 as temperature, or an unknown boost.

    Example:
        >>> values = torch.eye(4)
        >>> out = successive_halving_topk(values, torch.tensor([0.1, 2.0, 0.3, 1.0]), k=2)
        >>> out.positions
        tensor([1, 3])

    Source: Pietruszka, Borchmann, Graliński 2020, "Successive Halving Top-k Operator", Algorithm 2.
    """
    rule = Rule.of(boost, base)
    given = candidates(values, scores, k, mask, temperature)
    run = form(_SuccessiveHalving.apply, _compiled, onnx.successive_halving)
    answer = Answer(*run(given.values, given.scores, given.mask, given.temperature, given.k, rule))
    assignment = Assignment(answer.weights, answer.slots, answer.mask, answer.positions)
    out = TopK.of(answer.values, answer.scores, assignment).unflatten(given.batch)
    return out.in_order() if keep_order else out


def _compiled(values, scores, mask, temperature, k, rule):
    return compiled.successive_halving(values, scores, mask, temperature, k, rule.relative, rule.log_base)


class _SuccessiveHalving(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, scores, mask, temperature, k, rule):
        ctx.backend, ctx.rule = backends.pick(values, scores), rule
        answer, saved = ctx.backend.forward(values, scores, mask, temperature, k, rule)
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(answer.mask, answer.positions, answer.slots)
        return tuple(answer)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_values, grad_scores, _mask, _positions, grad_weights, _slots):
        values, scores, _, temperature = ctx.needs_input_grad[:4]
        gradients, wanted = Gradients(grad_values, grad_scores, grad_weights), Wanted(values, scores, temperature)
        of_values, of_scores, of_temperature = ctx.backend.backward(ctx.saved_tensors, gradients, ctx.rule, wanted)
        return of_values, of_scores, None, of_temperature, None, None
