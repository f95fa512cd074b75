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
    """A tournament of R rounds between m = k * 2^R places. A list of pairs is [winners, their losers]."""

    field: Tensor  # [B, m] the tokens of the first round's pairs; n and more for a bye
    divisor: Tensor  # the temperature, [B, 1] or a scalar
    scores: list[Tensor]  # R + 1 of them: each round's pairs [B, m], ..., [B, 2 k], and the k slots
    shares: list[Tensor]  # R times the weights of each pair's two, [B, m], ..., [B, 2 k]
    orders: list[Tensor]  # R times the pair that each of the next round's, or each slot, comes from


def _play(scores: Tensor, temperature: Tensor, k: int, boost: str, base: float) -> _Played:
    n, nobody = scores.shape[-1], _nobody(scores)
    scores = scores.clamp(min=nobody)
    ranking, order = _best(scores, HEAD * k)
    divisor = temperature * _spread(ranking[:, : 2 * k], k) if boost == "relative" else temperature
    divisor = divisor.clamp(min=torch.finfo(scores.dtype).tiny)
    size = k * 2 ** _rounds(n, k) if boost == "power" else _field_size(scores, ranking, divisor, k)
    if size > ranking.shape[-1] < n:
        ranking, order = _best(scores, n)
    if size > n:
        byes = torch.arange(n, size, device=scores.device).expand(len(scores), size - n)
        ranking, order = F.pad(ranking, (0, size - n), value=nobody), torch.cat([order, byes], -1)
    ranking, order = ranking[:, :size], order[:, :size]

    with_byes = bool((ranking[:, -1:] == nobody).any())
    field = order
    pairs: list[Tensor] = []
    shares: list[Tensor] = []
    orders: list[Tensor] = []
    while ranking.shape[-1] > k:
        winners, losers = pair = _fold(ranking)
        if pairs:
            orders.append(torch.cat(_fold(order), -1))
        else:
            field = torch.cat(_fold(order), -1)
        win = _win(winners, losers, divisor, boost, base)
        if with_byes:
            win = win.masked_fill(losers == nobody, 1)
        pairs.append(torch.cat(pair, -1))
        shares.append(torch.cat([win, 1 - win], -1))
        ranking, order = torch.lerp(losers, winners, win).sort(dim=-1, descending=True, stable=True)
    if pairs:
        orders.append(order)
    return _Played(field, divisor, [*pairs, ranking], shares, orders)


def _assign(played: _Played, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `tournament` returns: down the tree, each pair hands its slot and its share of the weight to its two."""
    field, first, pooled = played.field, played.scores[0], played.scores[-1]
    k = pooled.shape[-1]
    slots = torch.arange(k, device=field.device, dtype=first.dtype).expand_as(pooled)
    flow = torch.stack([torch.ones_like(slots), slots])  # weights and slots, [2, B, m]
    for share, order in zip(reversed(played.shares), reversed(played.orders), strict=True):
        flow = _unsort(flow, order).repeat(1, 1, 2)
        flow[0].mul_(share)
    weights, slots = flow[0], flow[1].long()
    dropped = (weights < _negligible(first.dtype, n, k)).logical_or_(first == _nobody(first))
    weights, slots = weights.masked_fill(dropped, 0), slots.masked_fill(dropped, -1)
    heaviest = _heaviest(weights, slots, field, k)
    return _to_tokens(weights, field, n, 0), _to_tokens(slots, field, n, -1), heaviest, pooled


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
    n, nobody = grad_weights.shape[-1], _nobody(grad_scores)

    # Up the tree: what a weight of 1 would be worth in each place, and by how much more in the winner's.
    worth = F.pad(grad_weights, (0, max(0, played.field.shape[-1] - n))).gather(-1, played.field)
    advantages = []
    for share, order in zip(played.shares, played.orders, strict=True):
        of_winner, of_loser = worth.chunk(2, -1)
        advantages.append(of_winner - of_loser)
        worth = torch.lerp(of_loser, of_winner, share.chunk(2, -1)[0]).gather(-1, order)

    # And down: the gradient of the score at each place, and the weight that comes with the place.
    grad_temperature = temperature.new_zeros(())
    flow = torch.stack([grad_scores, torch.ones_like(grad_scores)])  # [2, B, m]
    for pair, share, order, advantage in zip(
        *(reversed(level) for level in (played.scores[:-1], played.shares, played.orders, advantages)), strict=True
    ):
        flow = _unsort(flow, order)
        winners, losers = pair.chunk(2, -1)
        win, lose = share.chunk(2, -1)
        margin = (winners - losers).masked_fill(losers == nobody, 0)
        grad_margin = (flow[0] * margin).addcmul_(flow[1], advantage).mul_(win).mul_(lose).div_(played.divisor)
        if boost == "power":
            winners, losers = _power(winners, base), _power(losers, base)
            margin = winners - losers
            of_winner, of_loser = (grad_margin * potential * math.log(base) for potential in (winners, losers))
        else:
            of_winner = of_loser = grad_margin
        if of_temperature:
            grad_temperature -= (grad_margin * margin).sum().to(temperature.device)
        flow = flow.repeat(1, 1, 2).mul_(share)
        flow[0].add_(torch.cat([of_winner, -of_loser], -1))
    return _to_tokens(flow[0], played.field, n, 0), grad_temperature / temperature


class _Tournament(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, temperature, k, boost, base):
        played = _play(scores, temperature, k, boost, base)
        ctx.rounds = len(played.shares)
        ctx.save_for_backward(
            temperature, played.field, played.divisor, *played.shares, *played.orders, *played.scores
        )
        ctx.boost, ctx.base, ctx.shape = boost, base, scores.shape
        weights, slots, positions, pooled = _assign(played, scores.shape[-1])
        ctx.mark_non_differentiable(slots, positions)
        ctx.set_materialize_grads(False)
        return weights, slots, positions, pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_weights, _slots, _positions, grad_scores):
        temperature, field, divisor, *levels = ctx.saved_tensors
        shares, orders, scores = levels[: ctx.rounds], levels[ctx.rounds : -ctx.rounds - 1], levels[-ctx.rounds - 1 :]
        played = _Played(field, divisor, scores, shares, orders)
        if grad_weights is None:
            grad_weights = grad_scores.new_zeros(ctx.shape)
        if grad_scores is None:
            grad_scores = torch.zeros_like(scores[-1])
        grads = _gradients(
            played, grad_weights, grad_scores, temperature, ctx.boost, ctx.base, ctx.needs_input_grad[1]
        )
        return *grads, None, None, None


@torch.library.custom_op("shtopk::tournament", mutates_args=())
def tournament_op(
    scores: Tensor, temperature: Tensor, k: int, boost: str, base: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tournament` for compilers."""
    played = _play(scores, temperature, k, boost, base)
    return _assign(played, scores.shape[-1])


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


def _rounds(n: int, k: int) -> int:
    return max(0, math.ceil(math.log2(n / k)))


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores, falling, and whose they are; of equal scores the first token's first."""
    if count >= scores.shape[-1]:
        return scores.sort(dim=-1, descending=True, stable=True)
    tokens = scores.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    ranking, order = scores.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    return ranking, tokens.gather(-1, order)


def _field_size(scores: Tensor, ranking: Tensor, divisor: Tensor, k: int) -> int:
    """k * 2^R places, enough for every token that can have a weight."""
    n = scores.shape[-1]
    rounds = _rounds(n, k)
    if rounds < 2:
        return k * 2**rounds
    reach = LARGEST_FALL * rounds - math.log(_negligible(ranking.dtype, n, k))
    lowest = (ranking[:, k - 1 : k] - reach * divisor).clamp(min=_nobody(ranking))
    tokens = int((scores > lowest).sum(-1).amax())
    return k * 2 ** _rounds(max(tokens, 1), k)


def _negligible(dtype: torch.dtype, n: int, k: int) -> float:
    """The weight under which a token is dropped: at most 2 n / k of them in a slot, so twice eps together."""
    return torch.finfo(dtype).eps * min(1.0, k / n)


def _nobody(scores: Tensor) -> float:
    """The score of a place without a token: finite, so that no inf - inf arises, and below every token's."""
    return -torch.finfo(scores.dtype).max / 2


def _fold(ranking: Tensor) -> tuple[Tensor, Tensor]:
    """[best, ..., worst] -> winners and losers: the best meets the worst."""
    better, worse = ranking.chunk(2, -1)
    return better, worse.flip(-1)


def _win(winners: Tensor, losers: Tensor, divisor: Tensor, boost: str, base: float) -> Tensor:
    """Weight in [0.5, 1] of the winner of each pair."""
    if boost == "power":
        winners, losers = _power(winners, base), _power(losers, base)
    return (winners - losers).div_(divisor).sigmoid_()


def _power(scores: Tensor, base: float) -> Tensor:
    limit = math.log(torch.finfo(scores.dtype).max) / 2  # the power of a score far outside (0, 1) stays finite
    return (math.log(base) * scores).clamp_(max=limit).exp_()


def _spread(best: Tensor, k: int) -> Tensor:
    """[B, 1] by how much the k best of a falling ranking exceed the k next, on average."""
    real = best > _nobody(best)
    finite = best.masked_fill(~real, 0)
    first, next_ = (finite[:, part].sum(-1, keepdim=True) / real[:, part].sum(-1, keepdim=True).clamp(min=1)
                    for part in (slice(k), slice(k, 2 * k)))  # fmt: skip
    # Below the resolution of the scores themselves a difference is rounding, not a preference.
    resolution = 8 * torch.finfo(best.dtype).eps * finite.abs().amax(-1, keepdim=True)
    return torch.maximum(first - next_, resolution).clamp(min=SMALLEST_SPREAD)


def _heaviest(weights: Tensor, slots: Tensor, field: Tensor, k: int) -> Tensor:
    """[B, k] the token with the largest weight in each slot, the first of equals; 0 for an empty slot."""
    bin_ = slots.masked_fill(slots < 0, k)  # one bin more, for places without weight
    largest = weights.new_zeros(len(weights), k + 1).scatter_reduce_(1, bin_, weights, "amax")
    last = torch.iinfo(field.dtype).max
    field = field.masked_fill(weights < largest.gather(1, bin_), last)
    first = field.new_full((len(weights), k + 1), last).scatter_reduce_(1, bin_, field, "amin")[:, :k]
    return first.masked_fill(first == last, 0)


def _unsort(x: Tensor, order: Tensor) -> Tensor:
    """Undo `sorted = y.gather(-1, order)`; x may have a dimension more in front."""
    return torch.empty_like(x).scatter_(-1, order.expand_as(x), x)


def _to_tokens(x: Tensor, field: Tensor, n: int, rest: int) -> Tensor:
    """Hand what stands at the places [B, m] to their tokens [B, n]; rest to those that did not play."""
    tokens = x.new_full((len(x), max(n, x.shape[-1])), rest).scatter_(-1, field, x)
    return tokens[:, :n].contiguous()
