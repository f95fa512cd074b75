"""Successive halving in C, for numbers on a CPU: what tournament.py and slots.py do by tensor operations, and faster.

Installing shtopk compiles tournament.c if there is a C compiler. Without one everything works as well.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from shtopk.tournament import Choice, Trees, negligible, reach, rounds_between

TYPES = {torch.float32: "float", torch.float64: "double"}
ENOUGH = 2**17  # numbers for which a second thread pays
VERSION = 1  # of tournament.c


def open_library() -> ctypes.CDLL | None:
    """None where it was not built, or from another version of tournament.c."""
    found = importlib.util.find_spec("shtopk._tournament")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    if library.version() != VERSION:
        return None
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    signatures = {
        "field": (whole, pointer, *[whole] * 4, ctypes.c_int, real, real, *[pointer] * 3),
        "play": (whole, *[pointer] * 3, *[whole] * 5, real, real, *[pointer] * 6),
        "carriers": (None, *[pointer] * 3, *[whole] * 5, real, whole, *[pointer] * 5),
        "gradients": (real, *[pointer] * 6, *[whole] * 5, real, *[pointer] * 3),
        "pool_gradients": (None, *[pointer] * 6, *[whole] * 3, *[pointer] * 2),
    }
    for name, (result, *arguments) in signatures.items():
        for suffix in TYPES.values():
            function = getattr(library, f"{name}_{suffix}")
            function.restype, function.argtypes = result, arguments
    return library


LIBRARY = open_library()


def serves(*tensors: Tensor) -> bool:
    """Whether this module can work on these tensors, all of one dtype."""
    return LIBRARY is not None and all(
        type(x) is Tensor and x.device.type == "cpu" and x.dtype in TYPES and x.dtype == tensors[0].dtype
        for x in tensors
    )


def choose(scores: Tensor, temperature: Tensor, k: int, boost: str, base: float) -> Choice:
    """`tournament.choose`."""
    (batch, n), scores = scores.shape, scores.contiguous()
    divisors, counts = scores.new_empty(batch, 1), scores.new_empty(batch, dtype=torch.long)
    field = scores.new_empty(batch, n, 2)  # a score and an index for each token that plays
    find = _function("field", scores)
    degrees, below = float(temperature), reach(scores.dtype, n, k, boost)
    its = scores.data_ptr(), divisors.data_ptr(), counts.data_ptr(), field.data_ptr()
    most = _in_parts(
        lambda begin, end: find(its[0], begin, end, n, k, boost == "relative", degrees, below, *its[1:]), batch, n
    )
    _check(min(most) >= 0)

    rounds = rounds_between(max(*most, k), k)
    places = k * 2**rounds
    pairs, shares = scores.new_empty(2, batch, places - k, 2)
    weights, slots, leaf_weights = (scores.new_empty(batch, size) for size in (places - k, k, places))
    tokens = scores.new_empty(batch, places, dtype=torch.long)
    run, options = _function("play", scores), (n, k, rounds, _logarithm(boost, base), negligible(scores.dtype, n, k))
    given = [x.data_ptr() for x in (field, counts, divisors)]
    out = [x.data_ptr() for x in (pairs, shares, weights, slots, tokens, leaf_weights)]
    carriers = _in_parts(lambda begin, end: run(*given, begin, end, *options, *out), batch, 4 * places)
    _check(min(carriers) >= 0)

    leaf, token, slot = scores.new_empty(3, sum(carriers), dtype=torch.long)
    weight, positions = scores.new_empty(sum(carriers)), scores.new_empty(batch, k, dtype=torch.long)
    _function("carriers", scores)(
        *(x.data_ptr() for x in (tokens, leaf_weights, slots)),
        *(0, batch, n, k, rounds, negligible(scores.dtype, n, k), 0),
        *(x.data_ptr() for x in (leaf, token, weight, slot, positions)),
    )
    return Choice(Trees(pairs, shares, weights, divisors, slots), leaf, token, weight, slot, positions)


def score_gradients(
    choice: Choice, n: int, grad_weight: Tensor, grad_slots: Tensor, boost: str, base: float
) -> tuple[Tensor, Tensor]:
    """`tournament.score_gradients`."""
    trees, leaf, token, *_ = choice
    (batch, k), (_, nodes) = trees.scores.shape, trees.weights.shape
    grad_weight, grad_slots = grad_weight.contiguous(), grad_slots.contiguous()
    grad_scores = grad_weight.new_zeros(batch * n)
    run, options = _function("gradients", grad_weight), (k, rounds_between(nodes + k, k), _logarithm(boost, base))
    divisors = trees.divisor.expand(batch, 1).contiguous()
    kept = [x.data_ptr() for x in (trees.pairs, trees.shares, trees.weights, divisors, leaf, token)]
    grads = [x.data_ptr() for x in (grad_weight, grad_slots, grad_scores)]
    of_temperature = _in_parts(
        lambda begin, end: run(*kept, len(leaf), begin, end, *options, *grads), batch, 4 * (nodes + k)
    )
    _check(not any(map(math.isnan, of_temperature)))
    return grad_scores, grad_slots.new_tensor(sum(of_temperature))


def pool_gradients(
    grad: Tensor, values: Tensor, token: Tensor, weight: Tensor, slot: Tensor, of_values: bool
) -> tuple[Tensor | None, Tensor]:
    """The backward of `slots.pool_rows`.

    Args:
        grad, values: [B * k, d], [B * n, d].
        token, weight, slot: [r], see `slots.Rows`.
        of_values: whether their gradient is wanted.

    Returns:
        The gradients of values (or None) and of weight.
    """
    grad, values = grad.contiguous(), values.contiguous()
    (tokens, d), r = values.shape, len(token)
    many = 2 * r > tokens
    carrier = token.new_full((tokens,), -1).index_copy_(0, token, torch.arange(r)) if many else None
    grad_values = (torch.empty_like if many else torch.zeros_like)(values) if of_values else None
    grad_weight = torch.empty_like(weight)
    run = _function("pool_gradients", values)
    given = [None if x is None else x.data_ptr() for x in (grad, values, token, weight, slot, carrier)]
    out = [None if x is None else x.data_ptr() for x in (grad_values, grad_weight)]
    _in_parts(lambda begin, end: run(*given, begin, end, d, *out), tokens if many else r, d)
    return grad_values, grad_weight


def _function(name: str, numbers: Tensor) -> Callable:
    return getattr(LIBRARY, f"{name}_{TYPES[numbers.dtype]}")


def _in_parts(work: Callable[[int, int], Any], rows: int, size: int) -> list:
    """What work(begin, end) returns for parts of so many rows of a size, on torch's number of threads."""
    threads = min(torch.get_num_threads(), rows, rows * size // ENOUGH + 1)
    if threads < 2:
        return [work(0, rows)]
    bounds = [rows * part // threads for part in range(threads + 1)]
    first, *others = pairwise(bounds)
    running = [_threads().submit(work, *part) for part in others]
    return [work(*first), *(part.result() for part in running)]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="shtopk")


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _logarithm(boost: str, base: float) -> float:
    """Of the base that scores are exponents of; 0: they are compared as they are."""
    return math.log(base) if boost == "power" else 0.0


def _check(enough: bool) -> None:
    if not enough:
        raise MemoryError("not enough memory for the tournament of successive halving")
