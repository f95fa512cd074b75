"""Select and merge, by tensor operations: which tokens lead, whom the others join, what each weighs in its slot."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.autocast import without_autocast
from shtopk.backends.carriers import heaviest
from shtopk.backends.face import Answer, Backend, Saved
from shtopk.backends.tournament import negligible

CANDIDATES = 4  # tokens for each slot, among which its leader is chosen
CLOSEST = 1e-6  # the least distance that counts, 1 - cos: a copy of a leader has a bonus of log(1e-6) = -13.8
CHUNK = 2**22  # numbers of a table of similarities at once
COPIED = 2**25  # numbers of vectors at once that are not in the logits' dtype


def merge(backend: Backend, values: Tensor, scores: Tensor, logits: Tensor, k: int) -> tuple[Answer, Saved]:
    """Select and merge, pooled by a backend; see `Backend.merge`."""
    slots = partition(values, logits, k)
    weights = softmax_by_slot(logits, slots, k)
    slots = slots.masked_fill(weights < negligible(weights.dtype, logits.shape[-1], k), -1)
    weights, slot = weights.masked_fill(slots < 0, 0), slots.clamp(min=0)
    filled = torch.zeros_like(slots[:, :1]).expand(-1, k).scatter_add(1, slot, (slots >= 0).long()) > 0
    slot_scores = weights.new_zeros(filled.shape).scatter_add(1, slot, weights * scores.masked_fill(slots < 0, 0))
    pooled, saved = backend.pool(values, weights, slots, k)
    return Answer(pooled, slot_scores, filled, heaviest(weights, slots, filled), weights, slots), saved


def score_gradients(
    scores: Tensor, weights: Tensor, slots: Tensor, of_weights: Tensor, of_slot_scores: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients [B, n] of scores and of logits, the latter by way of the weights; slots stay as they are.

    Args:
        scores: [B, n] that `merge` was given.
        weights: [B, n] of its answer.
        slots: [B, n] of its answer.
        of_weights: [B, n] the gradient of the weights.
        of_slot_scores: [B, k] the gradient of the pooled scores.
    """
    slot = slots.clamp(min=0)
    handed = of_slot_scores.gather(1, slot)
    worth = weights * (of_weights + handed * scores.masked_fill(slots < 0, 0))
    of_slot = torch.zeros_like(of_slot_scores).scatter_add(1, slot, worth)
    return weights * handed, worth - weights * of_slot.gather(1, slot)


def softmax_by_slot(logits: Tensor, slots: Tensor, k: int) -> Tensor:
    """The softmax within each slot: of logits and slots [B, n], as [B, n]; 0 for a token without a slot."""
    real, slot = slots >= 0, slots.clamp(min=0)
    known = logits.masked_fill(~real, -torch.inf)
    highest = known.new_full((len(slots), k), -torch.inf).scatter_reduce(1, slot, known, "amax")
    powers = (known - highest.gather(1, slot).masked_fill(~real, 0)).exp()
    total = powers.new_zeros(len(slots), k).scatter_add(1, slot, powers)
    return powers / total.gather(1, slot).masked_fill(~real, 1)


def partition(values: Tensor, logits: Tensor, k: int) -> Tensor:
    """The slot of each token.

    Args:
        values: [B, n, d].
        logits: [B, n] float32 or float64, finite; -inf where there is no token.
        k: slots.

    Returns:
        Tensor: [B, n] int64 in 0..k-1. -1 where there is no token, and for a token whose weight is negligible wherever
        it goes.
    """
    with without_autocast(values.device.type):
        return join(values, logits, *lead(values, logits, k))  # which autocast would compare in half precision


def lead(values: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose the leaders one after the other: the candidate of the highest logit plus bonus.

    The bonus is the logarithm of its distance, 1 - cos, from the nearest leader so far.

    Returns:
        The leaders [B, k], -1 for none; their directions [B, k, d], 0 for none.
    """
    batch, d = values.shape[0], values.shape[-1]
    most = candidates_for(k, logits.shape[-1])
    logits, tokens = (x[:, :most] for x in logits.sort(dim=-1, descending=True, stable=True))
    units = direction(values.gather(1, tokens.unsqueeze(-1).expand(-1, -1, d)).to(logits.dtype))
    worth, nearest = logits, torch.full_like(logits, -2.0)
    leaders, directions = tokens.new_full((batch, k), -1), logits.new_zeros(batch, k, d)
    row = torch.arange(batch, device=values.device)
    for slot in range(min(k, most)):
        first = worth.argmax(-1)  # of equals the one of the higher logit
        found = worth[row, first] > -torch.inf
        leaders[:, slot] = tokens[row, first].where(found, -1)
        directions[:, slot] = leader = units[row, first].masked_fill(~found.unsqueeze(-1), 0)
        nearest = torch.maximum(nearest, (units @ leader.unsqueeze(-1)).squeeze(-1))
        nearest = nearest.scatter(1, first.unsqueeze(-1), torch.inf)  # it leads
        worth = logits + (1 - nearest).clamp(min=CLOSEST).log()
        worth = worth.masked_fill(nearest == torch.inf, -torch.inf)
    return leaders, directions


def join(values: Tensor, logits: Tensor, leaders: Tensor, directions: Tensor) -> Tensor:
    """The slot [B, n] of each token: that of the leader it is most like, of equals the first. A leader has its own."""
    (batch, n), k = logits.shape, leaders.shape[1]
    there = leaders >= 0
    slots = leaders.new_empty(batch, n)
    size = max(1, CHUNK // max(1, batch * k))
    if values.dtype != logits.dtype:
        size = min(size, max(1, COPIED // max(1, batch * values.shape[-1])))
    for start in range(0, n, size):
        similar = values[:, start : start + size].to(logits.dtype) @ directions.transpose(1, 2)
        similar = similar.masked_fill(~there.unsqueeze(1), -torch.inf).nan_to_num(-torch.inf)
        slots[:, start : start + size] = similar.argmax(-1)
    lowest = logits.gather(1, leaders.clamp(min=0)).masked_fill(~there, torch.inf).amin(-1, keepdim=True)
    slots = slots.masked_fill(~(logits >= lowest + math.log(negligible(logits.dtype, n, k))), -1)
    beside = torch.where(there, leaders, n)  # a place for the leaders that there are not
    own = torch.arange(k, device=values.device).expand_as(leaders)
    return F.pad(slots, (0, 1)).scatter(1, beside, own)[:, :n]


def direction(vectors: Tensor) -> Tensor:
    """Vectors [..., d] of length 1; all 0 where there is no direction."""
    largest = vectors.abs().amax(-1, keepdim=True)
    good = (largest > 0) & (largest < torch.inf)
    return F.normalize(vectors / torch.where(good, largest, 1), dim=-1, eps=0).masked_fill(~good, 0)


def candidates_for(k: int, n: int) -> int:
    """Of how many tokens k leaders are chosen."""
    return min(n, CANDIDATES * k)
