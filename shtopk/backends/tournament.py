"""The tournament of successive halving, on scores alone, and its gradients.

The scores [B, n] of each row become k binary trees. They say what weight a token has, and in which slot. Two things
make it cheap:

- Few tokens take part. A token's weight is w_i <= exp(-(s_slot - s_i) / T), where s_slot is the score that the slot
  ends with: on the way up, weight * exp(score of the node / T) never increases. So only tokens that can have a weight
  above rounding error play. A round between them and the others would change nothing, and is skipped.
- Backward is written out: one pass up the trees and one pass down, instead of a graph of small operations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.backends.carriers import Carriers
from shtopk.rule import Rule

SMALLEST_SPREAD = 1e-6  # in units of the scores: equal scores have no scale of their own
LARGEST_FALL = 0.2785  # a winner's score falls by at most this times T in a round: the maximum of x / (1 + exp(x))


class Trees(NamedTuple):
    """A tournament between k * L places, as k binary trees with L leaves in each row.

    Nodes are stored level by level, from the slots down. The two candidates that met in node c are the columns 2 c and
    2 c + 1 of the next level, so leaf c flows into slot c // L. A row has N = k * (L - 1) inner nodes.
    """

    pairs: Tensor  # [B, N, 2] the scores of winner and loser that met in each inner node
    shares: Tensor  # [B, N, 2] how much of the node is winner and loser
    weights: Tensor  # [B, N] the node's weight in its slot
    divisor: Tensor  # what a pair's margin is divided by: the temperature, a scalar, or [B, 1]
    slot_scores: Tensor  # [B, k] falling; that of a bye for a slot that no token reached

    @property
    def filled(self) -> Tensor:
        """[B, k] whether a token reached the slot."""
        return self.slot_scores > bye_score(self.slot_scores)


def play(scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Trees, Tensor, Carriers, Tensor]:
    """Play all rounds, and find the carriers: the tokens whose weight is not negligible.

    Args:
        scores: [B, n] float32 or float64, -inf where there is no token.
        temperature: scalar tensor > 0, on any device.
        k: slots.
        rule: how a pair is weighed.

    Returns:
        The trees; the leaves [r] of the carriers in 0..B*k*L-1, rising; the carriers themselves; and the position
        [B, k] of each slot's heaviest token (of equals the first, 0 in an empty slot).
    """
    trees, tokens, weights = _play(scores, temperature, k, rule)
    n, (batch, places) = scores.shape[-1], tokens.shape
    leaf = (weights >= negligible(weights.dtype, n, k)).flatten().nonzero().squeeze(-1)
    token = tokens.flatten()[leaf] + leaf // places * n
    by_slot = (batch, k, places // k)
    tokens, largest = tokens.view(by_slot), weights.view(by_slot).amax(-1, keepdim=True)
    positions = tokens.masked_fill(weights.view(by_slot) < largest, n).amin(-1).masked_fill(~trees.filled, 0)
    return trees, leaf, Carriers(token, weights.flatten()[leaf], leaf // (places // k)), positions


def _play(scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Trees, Tensor, Tensor]:
    """The trees, and the tokens and weights at their leaves, [B, k * L] each.

    A leaf without a token has weight 0, and the number of its token means nothing.
    """
    scores = scores.clamp(min=bye_score(scores))
    ranking, order, divisor = _field(scores, temperature, k, rule)
    rankings, orders = [ranking], [order]
    while ranking.shape[-1] > k:
        winners, losers = ranking.chunk(2, -1)
        losers = losers.flip(-1)  # the best meets the worst
        win = margin(winners, losers, rule).div_(divisor).sigmoid_()
        ranking, order = torch.lerp(losers, winners, win).sort(dim=-1, descending=True, stable=True)
        rankings.append(ranking)
        orders.append(order)

    # Backwards, from the slots: which two met there, and where had these come from?
    slot_scores, nodes = rankings.pop(), orders.pop()
    met = [slot_scores[:, :0]]
    for ranking, order in zip(reversed(rankings), reversed(orders), strict=True):
        places = torch.stack([nodes, ranking.shape[-1] - 1 - nodes], -1).flatten(1)
        met.append(ranking.gather(-1, places))
        nodes = order.gather(-1, places)
    pairs = _paired(torch.cat(met, -1))
    win = margin(pairs[..., 0], pairs[..., 1], rule).div_(divisor).sigmoid_()
    shares = torch.stack([win, 1 - win], -1)

    levels = [(slot_scores > bye_score(slot_scores)).to(slot_scores.dtype)]
    for level_shares in _levels(shares, k):
        levels.append((levels[-1].unsqueeze(-1) * level_shares).flatten(1))
    weights = torch.cat([slot_scores[:, :0], *levels[:-1]], -1)
    return Trees(pairs, shares, weights, divisor, slot_scores), nodes, levels[-1]


def score_gradients(
    trees: Trees, leaf: Tensor, token: Tensor, n: int, grad_weight: Tensor, grad_slot_scores: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    """The gradients of the scores [B * n] and of the temperature's logarithm (a scalar).

    Args:
        trees: of the tournament.
        leaf: [r] of the carriers, see `play`.
        token: [r] of the carriers.
        n: tokens of a row.
        grad_weight: [r] of the carriers' weights.
        grad_slot_scores: [B, k] of the slots' scores.
        rule: how a pair is weighed.
    """
    batch, k = trees.slot_scores.shape
    grad_leaves = grad_weight.new_zeros(batch, k + trees.pairs.shape[1])
    grad_leaves.view(-1).index_copy_(0, leaf, grad_weight)
    grad_leaves, of_temperature = _leaf_gradients(trees, grad_leaves, grad_slot_scores, rule)
    grad_scores = grad_weight.new_zeros(batch * n)
    return grad_scores.index_copy_(0, token, grad_leaves.flatten()[leaf]), of_temperature


def _leaf_gradients(trees: Trees, grad_weights: Tensor, grad_slot_scores: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """The gradients of the leaves' scores [B, k * L] and of the temperature's logarithm.

    They follow from those of the leaves' weights [B, k * L] and of the slots' scores [B, k].
    """
    win, lose = trees.shares.unbind(-1)
    k = grad_slot_scores.shape[-1]

    # Up the trees: what a weight of 1 is worth in each node, and by how much more in its winner than in its loser.
    worth, advantages = grad_weights, []
    for level_win in reversed(_levels(win, k)):
        of_winner, of_loser = _paired(worth).unbind(-1)
        advantages.append(of_winner - of_loser)
        worth = torch.addcmul(of_loser, advantages[-1], level_win)
    advantage = torch.cat([worth[:, :0], *reversed(advantages)], -1)

    # Down the trees: a node hands on its gradient by its shares, and moves its margin by its weight and its gradient.
    slope = win * lose / trees.divisor
    by_weight = slope * trees.weights * advantage
    winners, losers = trees.pairs.unbind(-1)
    by_score = slope * (winners - losers)
    plus, times = (torch.stack([x, -x], -1) for x in (by_weight, by_score))
    if rule.log_base:
        steepness = _steepness(trees.pairs, rule.log_base)
        plus, times = plus * steepness, times * steepness
    grads = [grad_slot_scores]
    for level_plus, level_times in zip(_levels(plus, k), _levels(trees.shares + times, k), strict=True):
        grads.append(torch.addcmul(level_plus, level_times, grads[-1].unsqueeze(-1)).flatten(1))
    of_margin = torch.addcmul(by_weight, by_score, torch.cat([worth[:, :0], *grads[:-1]], -1))
    return grads[-1], -(of_margin * margin(winners, losers, rule)).sum()


def bye_score(scores: Tensor) -> float:
    """The score of a place without a token: finite, so that inf - inf cannot arise, and below every token's."""
    return -torch.finfo(scores.dtype).max / 2


def negligible(dtype: torch.dtype, n: int, k: int) -> float:
    """The weight under which a token may be dropped.

    A slot drops at most 2 n / k tokens, which together weigh at most twice the rounding error of 1.
    """
    return torch.finfo(dtype).eps * min(1.0, k / n)


def reach(dtype: torch.dtype, n: int, k: int, rule: Rule) -> float:
    """How many divisors a token may lie below the k-th best and still have a weight; -1: all tokens play."""
    rounds = rounds_between(n, k)
    if rule.log_base or rounds < 2:
        return -1.0
    return LARGEST_FALL * rounds - math.log(negligible(dtype, n, k))


def rounds_between(n: int, k: int) -> int:
    """How many rounds lead from n candidates to k."""
    return max(0, math.ceil(math.log2(n / k)))


def _field(scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """The scores and indices [B, k * 2^R] of the tokens that can have a weight, and what margins are divided by.

    The best token comes first, the first of equals. Byes fill up the k * 2^R places.
    """
    n = scores.shape[-1]
    divisor, lowest = bounds(scores, temperature, k, rule)
    if lowest is not None:
        playing = scores >= lowest
        counts = playing.sum(-1)
        most = max([k, *counts.tolist()])
        if most < n:
            return *_with_byes(*_select(scores, playing, counts, most), k), divisor
    return *_with_byes(*scores.sort(dim=-1, descending=True, stable=True), k), divisor


def bounds(scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Tensor, Tensor | None]:
    """What margins are divided by ([B, 1] or a scalar), and the lowest score [B, 1] with which a token plays.

    None for the latter: every token plays. Whatever plays then has a score above half of a bye's.
    """
    n = scores.shape[-1]
    best = scores.topk(min(n, 2 * k if rule.relative else k)).values
    divisor = temperature * spread(best, k) if rule.relative else temperature
    numbers = torch.finfo(scores.dtype)
    divisor = divisor.clamp(numbers.tiny, numbers.max / 1024)  # at most: so that a bye always loses
    below = reach(scores.dtype, n, k, rule)
    if below < 0:
        return divisor, None
    return divisor, (best[:, min(n, k) - 1 : min(n, k)] - below * divisor).clamp(min=bye_score(scores) / 2)


def _select(scores: Tensor, playing: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The scores of those that play, falling, and their indices: [B, n] becomes [B, most].

    Args:
        counts: [B] how many play.
    """
    batch, n = scores.shape
    index = playing.flatten().nonzero().squeeze(-1)
    row = index // n
    skipped = torch.arange(0, batch * most, most, device=scores.device) - counts.cumsum(0) + counts
    place = torch.arange(len(index), device=scores.device) + skipped[row]
    ranking = scores.new_full((batch * most,), bye_score(scores)).index_copy_(0, place, scores.flatten()[index])
    tokens = index.new_zeros(batch * most).index_copy_(0, place, index - row * n)
    ranking, order = ranking.view(batch, most).sort(dim=-1, descending=True, stable=True)
    return ranking, tokens.view(batch, most).gather(-1, order)


def _with_byes(ranking: Tensor, tokens: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Fill up to k * 2^R places with byes."""
    byes = (0, k * 2 ** rounds_between(ranking.shape[-1], k) - ranking.shape[-1])
    if byes == (0, 0):
        return ranking, tokens
    return F.pad(ranking, byes, value=bye_score(ranking)), F.pad(tokens, byes)


def spread(best: Tensor, k: int) -> Tensor:
    """[B, 1] by how much the k best scores exceed the k next, on average. best: [B, 2 k] falling."""
    # Below the resolution of the scores themselves a difference is rounding, not a preference.
    largest = best.masked_fill(best <= bye_score(best), 0).abs().amax(-1, keepdim=True)
    spread = torch.maximum(_mean(best[:, :k]) - _mean(best[:, k:]), largest * (8 * torch.finfo(best.dtype).eps))
    return spread.clamp_(min=SMALLEST_SPREAD)


def _mean(scores: Tensor) -> Tensor:
    """[B, 1] the mean over the scores that are tokens'; 0 if there is none."""
    real = scores > bye_score(scores)
    count = real.sum(-1, keepdim=True).clamp(min=1)
    return (torch.where(real, scores, 0) / count).sum(-1, keepdim=True)  # a sum of large scores would overflow


def _levels(nodes: Tensor, k: int) -> tuple[Tensor, ...]:
    """[B, N, ...] as one tensor for each level, from that of the slots [B, k, ...] down."""
    levels = (nodes.shape[1] // k + 1).bit_length() - 1
    return nodes.split([k * 2**level for level in range(levels)], 1)


def _paired(x: Tensor) -> Tensor:
    """[B, 2 m] as pairs [B, m, 2]."""
    return x.view(len(x), x.shape[-1] // 2, 2)


def margin(winners: Tensor, losers: Tensor, rule: Rule) -> Tensor:
    """How far each winner is ahead, in scores or in powers. A bye is behind by a huge number."""
    if rule.log_base:
        ahead = _power(winners, rule.log_base) - _power(losers, rule.log_base)
        return ahead.masked_fill_(losers == bye_score(losers), -bye_score(losers))
    return winners - losers


def _power(scores: Tensor, log_base: float) -> Tensor:
    return (log_base * scores).clamp_(max=_highest(scores.dtype)).exp_()


def _steepness(scores: Tensor, log_base: float) -> Tensor:
    """The derivative of `_power`; 0 where it rises no further."""
    return (log_base * _power(scores, log_base)).masked_fill_(log_base * scores >= _highest(scores.dtype), 0)


def _highest(dtype: torch.dtype) -> float:
    """The exponent from which on a power stays the same, so that it is finite for a score far outside (0, 1)."""
    return math.log(torch.finfo(dtype).max) / 2
