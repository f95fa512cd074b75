"""The tournament of successive halving on scores alone, with a backward of its own.

Scores [B, n] become a weight and a slot for each token. Two things make it cheap:

- Few tokens take part. Whatever the others do, a token whose score lies d below the score that its slot ends with has
  a weight of at most exp(-d / T): the product of weight and exp(score of its node / T) never grows on the way up. So
  the field is cut to the tokens that can have a weight above rounding error. A round between them and the rest would
  change nothing, and is not played.
- Backward is written out, a pass up the tree and a pass down, instead of a graph of small operations.

Compilers get it as one operator of torch's, which they take as it is: the rounds depend on n and on the scores, and
traced code would be compiled anew for each number of them. That operator plays again in backward instead of keeping
tensors whose sizes no compiler can know.
"""

# No `from __future__ import annotations` here: torch.library reads the signatures.
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_SPREAD = 1e-6  # in units of the scores: equal scores have no scale of their own
HEAD = 16  # times k tokens are ranked at first; all of them only where more can have a weight
LARGEST_FALL = 0.2785  # a winner's score falls by at most this times T in a round: the maximum of x / (1 + exp(x))


def tournament(
    scores: Tensor, temperature: Tensor, k: int, boost: str, base: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Play all rounds.

    Args:
        scores: [B, n] float32 or float64, -inf where there is no token.
        temperature: scalar tensor > 0, on any device.
        k, boost, base: see `successive_halving_topk`.

    Returns:
        weights [B, n]; slots [B, n], -1 for a token without weight; positions [B, k] of the heaviest tokens, the
        first of equals; pooled scores [B, k]. Both of no meaning for a slot that no token reached. The weights
        dropped in a slot sum to no more than twice the rounding error of 1.
    """
    if torch.compiler.is_compiling():
        return tournament_op(scores, temperature, k, boost, base)
    return _Tournament.apply(scores, temperature, k, boost, base)


class _Played(NamedTuple):
    """A tournament as k binary trees in each row, with m = k * 2^R leaves together.

    Nodes stand level by level, from the slots down: a level of P nodes in each tree has P * k columns, and the two
    that met in its column c are the columns c and c + P * k of the level below.
    """

    tokens: Tensor  # [B, m] the tokens at the leaves; n and more for a bye
    winners: Tensor  # [B, m - k] the better score of the two that met in each inner node
    losers: Tensor  # [B, m - k] the worse one
    divisor: Tensor  # the temperature, [B, 1] or a scalar
    scores: Tensor  # [B, k] of the slots, falling


def _play(scores: Tensor, temperature: Tensor, k: int, boost: str, base: float) -> _Played:
    ranking, order, divisor = _field(scores, temperature, k, boost)
    rankings, orders = [ranking], [order]
    while ranking.shape[-1] > k:
        winners, losers = ranking.chunk(2, -1)
        losers = losers.flip(-1)  # the best meets the worst
        win = _win(winners, losers, divisor, boost, base)
        ranking, order = torch.lerp(losers, winners, win).sort(dim=-1, descending=True, stable=True)
        rankings.append(ranking)
        orders.append(order)

    # Backwards, from the slots: which two met there, and where had these come from?
    nodes = orders.pop()
    better, worse = [scores[:, :0]], [scores[:, :0]]
    for ranking, order in zip(reversed(rankings[:-1]), reversed(orders), strict=True):
        places = torch.cat([nodes, ranking.shape[-1] - 1 - nodes], -1)
        winners, losers = ranking.gather(-1, places).chunk(2, -1)
        better.append(winners)
        worse.append(losers)
        nodes = order.gather(-1, places)
    return _Played(nodes, torch.cat(better, -1), torch.cat(worse, -1), divisor, rankings[-1])


def _weights(win: Tensor, scores: Tensor) -> list[Tensor]:
    """Of every node in its slot, level by level: [B, k], ..., [B, m]; 0 in a slot without a token."""
    levels = [(scores > _nobody(scores)).to(scores.dtype)]
    lose = 1 - win
    for its_win, its_lose in zip(_levels(win, scores), _levels(lose, scores), strict=True):
        levels.append(torch.cat([levels[-1] * its_win, levels[-1] * its_lose], -1))
    return levels


def _answer(played: _Played, boost: str, base: float, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `tournament` returns."""
    win = _win(played.winners, played.losers, played.divisor, boost, base)
    weights = _weights(win, played.scores)[-1]
    k, m = played.scores.shape[-1], weights.shape[-1]
    dropped = weights < _negligible(weights.dtype, n, k)
    weights = weights.masked_fill(dropped, 0)
    slots = torch.arange(m, device=weights.device).remainder(k).masked_fill(dropped, -1)

    by_slot, tokens = weights.view(-1, m // k, k), played.tokens.view(-1, m // k, k)
    heaviest = tokens.masked_fill(by_slot < by_slot.amax(1, keepdim=True), m + n).amin(1)
    return _to_tokens(weights, played.tokens, n, 0), _to_tokens(slots, played.tokens, n, -1), heaviest, played.scores


def _gradients(
    played: _Played,
    grad_weights: Tensor,
    grad_scores: Tensor,
    temperature: Tensor,
    boost: str,
    base: float,
    of_temperature: bool = True,
) -> tuple[Tensor, Tensor]:
    """Of the scores [B, n] and of the temperature (a scalar)."""
    n, slot_scores = grad_weights.shape[-1], played.scores
    winners, losers = played.winners, played.losers
    win = _win(winners, losers, played.divisor, boost, base)
    weights = torch.cat([slot_scores[:, :0], *_weights(win, slot_scores)[:-1]], -1)

    # Up the trees: what a weight of 1 is worth in each node, and by how much more in its winner than in its loser.
    worth = F.pad(grad_weights, (0, max(0, played.tokens.shape[-1] - n))).gather(-1, played.tokens)
    advantages = []
    for its_win in reversed(_levels(win, slot_scores)):
        of_winner, of_loser = worth.chunk(2, -1)
        advantages.append(of_winner - of_loser)
        worth = torch.addcmul(of_loser, advantages[-1], its_win)
    advantage = torch.cat([slot_scores[:, :0], *reversed(advantages)], -1)

    # Down the trees: what each node hands to its two, from its own gradient (times) and from its weight (plus).
    margin = _margin(winners, losers, boost, base)
    slope = win * (1 - win) / played.divisor
    by_score, by_weight = slope * (winners - losers), slope * weights * advantage
    if boost == "power":
        of_winner, of_loser = (math.log(base) * _power(score, base) for score in (winners, losers))
    else:
        of_winner = of_loser = torch.ones_like(margin[:, :1])
    handed = (win + of_winner * by_score, of_winner * by_weight, 1 - win - of_loser * by_score, -of_loser * by_weight)
    grads = [grad_scores]
    for times, plus, times_loser, plus_loser in zip(*(_levels(x, slot_scores) for x in handed), strict=True):
        grad = grads[-1]
        grads.append(torch.cat([torch.addcmul(plus, times, grad), torch.addcmul(plus_loser, times_loser, grad)], -1))

    grad_temperature = temperature.new_zeros(())
    if of_temperature:
        of_margin = by_weight + by_score * torch.cat([slot_scores[:, :0], *grads[:-1]], -1)
        grad_temperature = -(of_margin * margin).sum().to(temperature.device) / temperature
    return _to_tokens(grads[-1], played.tokens, n, 0), grad_temperature


class _Tournament(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, temperature, k, boost, base):
        played = _play(scores, temperature, k, boost, base)
        ctx.save_for_backward(temperature, *played)
        ctx.boost, ctx.base, ctx.shape = boost, base, scores.shape
        weights, slots, positions, pooled = _answer(played, boost, base, scores.shape[-1])
        ctx.mark_non_differentiable(slots, positions)
        ctx.set_materialize_grads(False)
        return weights, slots, positions, pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_weights, _slots, _positions, grad_scores):
        temperature, *played = ctx.saved_tensors
        played = _Played(*played)
        if grad_weights is None:
            grad_weights = grad_scores.new_zeros(ctx.shape)
        if grad_scores is None:
            grad_scores = torch.zeros_like(played.scores)
        of_temperature = ctx.needs_input_grad[1]
        grads = _gradients(played, grad_weights, grad_scores, temperature, ctx.boost, ctx.base, of_temperature)
        return *grads, None, None, None


@torch.library.custom_op("shtopk::tournament", mutates_args=())
def tournament_op(
    scores: Tensor, temperature: Tensor, k: int, boost: str, base: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tournament` for compilers."""
    return _answer(_play(scores, temperature, k, boost, base), boost, base, scores.shape[-1])


@torch.library.custom_op("shtopk::tournament_backward", mutates_args=())
def tournament_backward_op(
    grad_weights: Tensor, grad_scores: Tensor, scores: Tensor, temperature: Tensor, boost: str, base: float
) -> tuple[Tensor, Tensor]:
    """Gradients of `tournament_op`'s scores and temperature."""
    played = _play(scores, temperature, grad_scores.shape[-1], boost, base)
    return _gradients(played, grad_weights, grad_scores, temperature, boost, base)


@tournament_op.register_fake
def _(scores, temperature, k, boost, base):
    slots = torch.empty_like(scores, dtype=torch.long)
    pooled = scores.new_empty(scores.shape[0], k)
    return torch.empty_like(scores), slots, torch.empty_like(pooled, dtype=torch.long), pooled


@tournament_backward_op.register_fake
def _(grad_weights, grad_scores, scores, temperature, boost, base):
    return torch.empty_like(scores), torch.empty_like(temperature)


def _keep(ctx, inputs, output):
    scores, temperature, _, ctx.boost, ctx.base = inputs
    ctx.save_for_backward(scores, temperature)


def _backward(ctx, grad_weights, _slots, _positions, grad_scores):
    grads = tournament_backward_op(grad_weights, grad_scores, *ctx.saved_tensors, ctx.boost, ctx.base)
    return *grads, None, None, None


tournament_op.register_autograd(_backward, setup_context=_keep)


def _field(scores: Tensor, temperature: Tensor, k: int, boost: str) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens that can have a weight, filled up to k * 2^R with byes: scores, falling, and indices [B, m]; and
    by what margins are divided."""
    n, nobody = scores.shape[-1], _nobody(scores)
    scores = scores.clamp(min=nobody)
    ranking, tokens = _best(scores, HEAD * k)
    divisor = temperature * _spread(ranking[:, : 2 * k], k) if boost == "relative" else temperature
    numbers = torch.finfo(scores.dtype)
    divisor = divisor.clamp(numbers.tiny, numbers.max / 1024)  # at most: so that a bye always loses
    most = k * 2 ** _rounds(n, k)
    if boost == "power" or most <= 2 * k:
        size = most
    else:
        size = _field_size(ranking, divisor, k, n)
    if size > ranking.shape[-1] and ranking.shape[-1] < n:
        ranking, tokens = _best(scores, n)
        size = most if boost == "power" else _field_size(ranking, divisor, k, n)
    if size > n:
        byes = torch.arange(n, size, device=scores.device).expand(len(scores), size - n)
        return F.pad(ranking, (0, size - n), value=nobody), torch.cat([tokens, byes], -1), divisor
    return ranking[:, :size], tokens[:, :size], divisor


def _field_size(ranking: Tensor, divisor: Tensor, k: int, n: int) -> int:
    """k * 2^R places, enough for every token that can have a weight; more than ranked, where all ranked ones can."""
    reach = LARGEST_FALL * _rounds(n, k) - math.log(_negligible(ranking.dtype, n, k))
    lowest = (ranking[:, k - 1 : k] - reach * divisor).clamp(min=_nobody(ranking))
    tokens = int((ranking > lowest).sum(-1).amax())
    if tokens == ranking.shape[-1] < n:
        return k * 2 ** _rounds(n, k)
    return k * 2 ** _rounds(max(tokens, 1), k)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores, falling, and whose they are; of equal scores the first token's first."""
    if count >= scores.shape[-1]:
        return scores.sort(dim=-1, descending=True, stable=True)
    tokens = scores.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    ranking, order = scores.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    return ranking, tokens.gather(-1, order)


def _rounds(n: int, k: int) -> int:
    return max(0, math.ceil(math.log2(n / k)))


def _negligible(dtype: torch.dtype, n: int, k: int) -> float:
    """The weight under which a token is dropped: at most 2 n / k of them in a slot, so twice eps together."""
    return torch.finfo(dtype).eps * min(1.0, k / n)


def _nobody(scores: Tensor) -> float:
    """The score of a place without a token: finite, so that no inf - inf arises, and below every token's."""
    return -torch.finfo(scores.dtype).max / 2


def _win(winners: Tensor, losers: Tensor, divisor: Tensor, boost: str, base: float) -> Tensor:
    """Weight in [0.5, 1] of the winner of each pair."""
    return _margin(winners, losers, boost, base).div_(divisor).sigmoid_()


def _margin(winners: Tensor, losers: Tensor, boost: str, base: float) -> Tensor:
    """By how much each winner is ahead, in the boost's terms; a bye's loser is behind by a huge number."""
    if boost == "power":
        nobody = _nobody(losers)
        return (_power(winners, base) - _power(losers, base)).masked_fill_(losers == nobody, -nobody)
    return winners - losers


def _power(scores: Tensor, base: float) -> Tensor:
    limit = math.log(torch.finfo(scores.dtype).max) / 2  # the power of a score far outside (0, 1) stays finite
    return (math.log(base) * scores).clamp_(max=limit).exp_()


def _spread(best: Tensor, k: int) -> Tensor:
    """[B, 1] by how much the k best of a falling ranking exceed the k next, on average."""
    nobody = _nobody(best)
    if best.shape[-1] < 2 * k:
        best = F.pad(best, (0, 2 * k - best.shape[-1]), value=nobody)
    real = best > nobody
    finite = torch.where(real, best, 0)
    means = finite.view(-1, 2, k).sum(-1) / real.view(-1, 2, k).sum(-1).clamp_(min=1)
    # Below the resolution of the scores themselves a difference is rounding, not a preference.
    resolution = finite.abs().amax(-1, keepdim=True).mul_(8 * torch.finfo(best.dtype).eps)
    return torch.maximum(means[:, :1] - means[:, 1:], resolution).clamp_(min=SMALLEST_SPREAD)


def _levels(nodes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    """Inner nodes [B, m - k] -> one tensor for each level, from that of the slots [B, k] down."""
    k = scores.shape[-1]
    return nodes.split([k * 2**level for level in range(_rounds(nodes.shape[-1] + k, k))], -1)


def _to_tokens(x: Tensor, tokens: Tensor, n: int, rest: int) -> Tensor:
    """Hand what the leaves [B, m] have to their tokens [B, n]; rest to those that did not play."""
    out = x.new_full((len(tokens), max(n, tokens.shape[-1])), rest).scatter_(-1, tokens, x)
    return out[:, :n].contiguous()
