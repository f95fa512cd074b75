"""The slow, obvious oracle: the paper's two algorithms as loops over single vectors, select and merge, hard top-k.

Line numbers and names follow Pietruszka, Borchmann, Graliński 2020 (arXiv:2010.15552). E is a list of n vectors,
v a list of n scores (0-dim tensors); one document at a time, no mask: leave out what is masked.
"""

import math

import torch
from torch import Tensor

TAKEN = -10_000.0  # "some large negative number"


def boosted_softmax(x: Tensor, y: Tensor, boost: str, temperature: float, base: float = 20.0, spread=None):
    """Weights (of x, of y) of a pair: the paper's peaked softmax and its variants."""
    if boost == "power":
        x, y = base**x, base**y
    if boost == "relative":
        x, y = x / spread, y / spread
    return torch.softmax(torch.stack([x, y]) / temperature, 0)


def selection_spread(v: list[Tensor], k: int) -> float:
    """Mean of the k best scores less the mean of the k next ones."""
    ranked = sorted((x.item() for x in v), reverse=True)
    best, next_ = ranked[:k], ranked[k : 2 * k]
    return sum(best) / len(best) - sum(next_) / max(1, len(next_)) if next_ else 1.0


def algorithm_1(E: list[Tensor], v: list[Tensor], k: int, temperature: float = 1.0):
    """Iterative top-k: k softmaxes over all n, each on scores in which the earlier maxima are overwritten."""
    v, E_out, v_out = list(v), [], []
    for _ in range(k):
        m = max(v)  # the highest score at the moment
        w = torch.softmax(torch.stack([-((x - m) ** 2) / temperature for x in v]), 0)
        E_out.append(sum(w_j * e_j for w_j, e_j in zip(w, E, strict=True)))
        v_out.append(sum(w_j * v_j for w_j, v_j in zip(w, v, strict=True)))
        v[next(j for j, x in enumerate(v) if x is m)] = torch.full_like(m, TAKEN)
    return E_out, v_out


def algorithm_2(E: list[Tensor], v: list[Tensor], k: int, boost="softmax", temperature=1.0, base=20.0):
    """Successive halving: procedures TopK, Sort and Tournament. n / k not a power of two: a missing opponent loses."""
    spread = selection_spread(v, k)
    for _ in range(max(0, math.ceil(math.log2(len(v) / k)))):
        E, v = sort(E, v)
        target = max(k, k * 2 ** (math.ceil(math.log2(len(v) / k)) - 1))
        E, v = tournament(E, v, target, lambda x, y: boosted_softmax(x, y, boost, temperature, base, spread))
    return sort(E, v)


def sort(E, v):
    order = sorted(range(len(v)), key=lambda i: v[i].item(), reverse=True)
    return [E[i] for i in order], [v[i] for i in order]


def tournament(E, v, target, weigh):
    E_new, v_new = E[:target], v[:target]  # as they are, for whom there is no opponent
    for opponent in range(target, len(v)):
        i = 2 * target - 1 - opponent
        w = weigh(v[i], v[opponent])
        E_new[i] = E[i] * w[0] + E[opponent] * w[1]
        v_new[i] = v[i] * w[0] + v[opponent] * w[1]
    return E_new, v_new


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def select_and_merge(E: list[Tensor], v: list[Tensor], k: int, temperature: float = 1.0):
    """Leaders one by one, of the 4 k best; all others to the leader they are most like; a softmax in each slot."""
    logits = [x / temperature for x in v]
    field = sorted(range(len(v)), key=lambda i: v[i].item(), reverse=True)[: 4 * k]
    leaders = []
    while len(leaders) < k:

        def worth(i):
            nearest = max((cosine(E[i], E[j]) for j in leaders), default=0.0)
            return logits[i].item() + (math.log(max(1 - nearest, 1e-6)) if leaders else 0.0)

        leaders.append(max((i for i in field if i not in leaders), key=worth))
    slots = [leaders.index(i) if i in leaders else max(range(k), key=lambda j: cosine(E[i], E[leaders[j]]))
             for i in range(len(v))]  # fmt: skip
    E_out, v_out = [], []
    for slot in range(k):
        tokens = [i for i in range(len(v)) if slots[i] == slot]
        w = torch.softmax(torch.stack([logits[i] for i in tokens]), 0)
        E_out.append(sum(w_i * E[i] for w_i, i in zip(w, tokens, strict=True)))
        v_out.append(sum(w_i * v[i] for w_i, i in zip(w, tokens, strict=True)))
    return E_out, v_out


def hard(E, v, k):
    E, v = sort(E, v)
    return E[:k], v[:k]


def by_rows(algorithm, values: Tensor, scores: Tensor, mask: Tensor, k: int, **options):
    """Run an algorithm on each row's real tokens; empty slots are zero. [B, n, d], [B, n] -> [B, k, d], [B, k]."""
    out_values, out_scores = [], []
    for row_values, row_scores, real in zip(values, scores, mask, strict=True):
        E, v = list(row_values[real].unbind(0)), list(row_scores[real].unbind(0))
        if E:
            E, v = algorithm(E, v, min(k, len(E)), **options)
        missing = k - len(v)
        out_values.append(torch.stack(E + [values.new_zeros(values.shape[-1])] * missing))
        out_scores.append(torch.stack(v + [scores.new_zeros(())] * missing))
    return torch.stack(out_values), torch.stack(out_scores)
