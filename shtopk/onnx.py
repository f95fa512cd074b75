"""The operators for ONNX: tensor operations that `torch.onnx.export` can translate.

Exporters know no custom operators, and a graph in ONNX cannot leave out the tokens that carry no weight, as a backend
does. Here every size follows from n and k, and nothing is decided by data. So it is no way to train, and slower than a
backend.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.backends import Answer
from shtopk.backends.clusters import CANDIDATES, CLOSEST, direction
from shtopk.backends.tournament import bye_score, margin, rounds_between, spread
from shtopk.candidates import bounded
from shtopk.rule import Rule

LONGEST = 2**17  # tokens of a row that a tournament has rounds for, where a graph is to serve every n


def successive_halving(
    values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
) -> Answer:
    """Successive halving; see `backends.Backend.forward`. Of n > LONGEST tokens the best LONGEST take part."""
    weights, slots, slot_scores = _play(bounded(scores, mask), temperature, k, rule)
    filled = slot_scores > bye_score(slot_scores)
    return _answer(
        values, *_without_negligible(weights, slots, k), slot_scores.masked_fill(~filled, 0).to(scores.dtype), filled
    )


def select_and_merge(values: Tensor, scores: Tensor, logits: Tensor, k: int) -> Answer:
    """Select and merge; see `backends.Backend.merge`."""
    vectors = values.to(logits.dtype)
    slots = _join(vectors, logits, *_lead(vectors, logits, k))
    member = _member(slots, k)
    filled = member.any(-1)
    known = logits.unsqueeze(1).masked_fill(~member, -torch.inf).masked_fill(~filled.unsqueeze(-1), 0)
    weights = known.softmax(-1).masked_fill(~member, 0).sum(1)
    weights, slots = _without_negligible(weights, slots, k)
    share = weights * scores.masked_fill(slots < 0, 0)
    slot_scores = share.unsqueeze(1).masked_fill(~_member(slots, k), 0).sum(-1)
    return _answer(values, weights, slots, slot_scores, filled)


def pool_by_slot(values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Tensor:
    """`slots.pool_by_slot` as a product of matrices."""
    shares = weights.unsqueeze(1).masked_fill(~_member(slots, k), 0)  # [B, k, n]
    return shares.to(values.dtype) @ values.masked_fill((weights == 0).unsqueeze(-1), 0)


def heaviest(weights: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
    """`backends.carriers.heaviest` without a scatter."""
    return weights.unsqueeze(-2).masked_fill(~_member(slots, mask.shape[-1]), -1).argmax(-1).masked_fill(~mask, 0)


def _answer(values: Tensor, weights: Tensor, slots: Tensor, slot_scores: Tensor, filled: Tensor) -> Answer:
    pooled = pool_by_slot(values, weights, slots, filled.shape[1])
    return Answer(pooled, slot_scores, filled, heaviest(weights, slots, filled), weights, slots)


def _without_negligible(weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Weights and slots [B, n] without the tokens whose weight is negligible."""
    dropped = weights < _negligible(weights, k)
    return weights.masked_fill(dropped, 0), slots.masked_fill(dropped, -1)


def _member(slots: Tensor, k: int) -> Tensor:
    """[*, k, n] whether the token is in the slot."""
    return slots.unsqueeze(-2) == torch.arange(k, device=slots.device).unsqueeze(-1)


def _negligible(weights: Tensor, k: int) -> Tensor:
    """[B, 1] `tournament.negligible` for an n that need not be known."""
    n = torch.ones_like(weights).sum(-1, keepdim=True)
    return torch.finfo(weights.dtype).eps * (k / n).clamp(max=1)


def _play(scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """The tournament of `tournament.play`: weights and slots [B, n] of all tokens, and the scores [B, k] of the slots.

    The ranking keeps its size. In each round its lower half becomes byes, and their tokens move to the winners. A
    round for more candidates than there are changes nothing, so one number of rounds serves every n.
    """
    n, bye = scores.shape[1], bye_score(scores)
    ranking, order = F.pad(scores.clamp(min=bye), (0, 2 * k), value=bye).sort(dim=-1, descending=True)
    place = torch.arange(ranking.shape[1], device=scores.device).expand_as(ranking)
    divisor = temperature * spread(ranking[:, : 2 * k], k) if rule.relative else temperature
    numbers = torch.finfo(scores.dtype)
    divisor = divisor.clamp(numbers.tiny, numbers.max / 1024)
    rounds = rounds_between(n if isinstance(n, int) else LONGEST, k)
    node = _inverse(order, place)[:, :n]  # where each token stands
    weights = ((scores > bye) & (node < k * 2**rounds)).to(scores.dtype)
    for upper in (k * 2**level for level in reversed(range(rounds))):
        mate = 2 * upper - 1 - place  # the best meets the worst
        there = (mate >= 0) & (mate < ranking.shape[1])
        other = ranking.gather(1, mate.masked_fill(~there, 0)).masked_fill(~there, bye)
        wins = place < upper
        winner, loser = torch.where(wins, ranking, other), torch.where(wins, other, ranking)
        win = (margin(winner, loser, rule) / divisor).sigmoid()
        weights = weights * torch.where(wins, win, 1 - win).gather(1, node)
        node = torch.where(node < upper, node, 2 * upper - 1 - node).clamp(min=0)
        ranking, order = torch.lerp(loser, winner, win).masked_fill(~wins, bye).sort(dim=-1, descending=True)
        node = _inverse(order, place).gather(1, node)
    return weights, node.clamp(max=k - 1), ranking[:, :k]


def _inverse(order: Tensor, place: Tensor) -> Tensor:
    """The inverse of the permutations [B, m], given 0..m-1 for each row."""
    return torch.zeros_like(order).scatter(1, order, place)


def _lead(values: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The leaders [B, k], -1 for none, and their directions [B, k, d]; see `clusters.lead`."""
    most = CANDIDATES * k
    logits, tokens = F.pad(logits, (0, most), value=-torch.inf).topk(most, -1)
    tokens = tokens.masked_fill(logits == -torch.inf, 0)
    units = direction(values.gather(1, tokens.unsqueeze(-1).expand(-1, -1, values.shape[-1])))
    similar = units @ units.transpose(1, 2)
    worth, nearest, chosen, found = logits, torch.full_like(logits, -2.0), [], []
    for _ in range(k):
        first = worth.argmax(-1, keepdim=True)  # of equals the one of the higher logit
        chosen.append(first)
        found.append(worth.gather(1, first) > -torch.inf)
        nearest = torch.maximum(nearest, similar.gather(1, first.unsqueeze(-1).expand(-1, -1, most)).squeeze(1))
        nearest = nearest.scatter(1, first, torch.inf)  # it leads
        worth = logits + (1 - nearest).clamp(min=CLOSEST).log()
        worth = worth.masked_fill(nearest == torch.inf, -torch.inf)
    place, there = torch.cat(chosen, -1), torch.cat(found, -1)
    directions = units.gather(1, place.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    return tokens.gather(1, place).masked_fill(~there, -1), directions.masked_fill(~there.unsqueeze(-1), 0)


def _join(values: Tensor, logits: Tensor, leaders: Tensor, directions: Tensor) -> Tensor:
    """The slot [B, n] of each token; see `clusters.join`."""
    there, k = leaders >= 0, leaders.shape[1]
    similar = (values @ directions.transpose(1, 2)).masked_fill(~there.unsqueeze(1), -torch.inf)
    slots = similar.nan_to_num(-torch.inf).argmax(-1)
    lowest = logits.gather(1, leaders.clamp(min=0)).masked_fill(~there, torch.inf).amin(-1, keepdim=True)
    slots = slots.masked_fill(~(logits >= lowest + _negligible(logits, k).log()), -1)
    own = torch.arange(k, device=values.device).expand_as(leaders)
    return F.pad(slots, (1, 0)).scatter(1, leaders + 1, own)[
        :, 1:
    ]  # in front a place for the leaders that there are not
