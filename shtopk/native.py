"""Successive halving in C, for float32 and float64 on a CPU: what tournament.py and slots.py do by tensor operations.

Installing shtopk compiles tournament.c if there is a C compiler. Without one everything works as well.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import warnings
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from shtopk.memory import in_huge_pages
from shtopk.threads import share
from shtopk.tournament import Choice, Trees, negligible, reach, rounds_between

TYPES = {torch.float32: "float", torch.float64: "double"}
ENOUGH = 2**17  # numbers for which a second thread pays
VERSION = 3  # of tournament.c


class _Numbers:
    """How C gets a tensor: as its address. A tensor that is passed to a call lives until the call returns."""

    @staticmethod
    def from_param(tensor: Tensor | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def open_library() -> ctypes.CDLL | None:
    """tournament.c, compiled; None where it was not, or cannot be used."""
    found = importlib.util.find_spec("shtopk._tournament")
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
        if library.version() != VERSION:
            raise OSError(f"expected version {VERSION}, got {library.version()}")
        _declare(library)
    except (OSError, AttributeError) as error:
        warnings.warn(
            f"{found.origin} cannot be used ({error}), so tensor operations do its work; install shtopk again",
            stacklevel=2,
        )
        return None
    return library


def _declare(library: ctypes.CDLL) -> None:
    """What its functions take."""
    it, whole, real = _Numbers, ctypes.c_int64, ctypes.c_double
    arguments = {  # after the first row and the one after the last
        "field": [it, whole, whole, ctypes.c_int, real, real, *[it] * 3],
        "play": [*[it] * 3, *[whole] * 3, real, real, *[it] * 7],
        "list": [*[it] * 4, *[whole] * 3, real, *[it] * 5],
        "score_gradients": [*[it] * 6, *[whole] * 3, real, *[it] * 4],
        "pool_gradients_by_carrier": [*[it] * 5, whole, *[it] * 2],
        "pool_gradients_by_token": [*[it] * 5, whole, *[it] * 2],
    }
    for name, its in arguments.items():
        for suffix in TYPES.values():
            getattr(library, f"{name}_{suffix}").argtypes = [whole, whole, *its]


LIBRARY = open_library()


def serves(*tensors: Tensor) -> bool:
    """Whether this module can work on these tensors, all of one dtype. Not while they are traced: a compiler takes
    tensor operations as they are."""
    return (
        LIBRARY is not None and not torch.compiler.is_compiling() and all(_plain(x, tensors[0].dtype) for x in tensors)
    )


def _plain(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether there is memory that holds these numbers."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in TYPES
        and x.dtype == dtype
        and not x.is_neg()
        and (x.data_ptr() != 0 or x.numel() == 0)
    )


def choose(scores: Tensor, temperature: Tensor, k: int, boost: str, base: float) -> tuple[Choice, Tensor]:
    """`tournament.choose`."""
    (batch, n), scores = scores.shape, scores.contiguous()
    new, threshold = scores.new_empty, negligible(scores.dtype, n, k)
    divisors, counts, carriers = new(batch, 1), new(batch, dtype=torch.long), new(batch, dtype=torch.long)
    field = new(batch, n, 2)  # a score and an index for each token that plays
    below = reach(scores.dtype, n, k, boost)
    _run("field", batch, n, scores, n, k, boost == "relative", float(temperature), below, divisors, counts, field)

    rounds = rounds_between(max([k, *counts.tolist()]), k)
    places = k * 2**rounds
    pairs, shares = new(batch, places - k, 2), new(batch, places - k, 2)
    weights, slots, leaf_weights = (new(batch, size) for size in (places - k, k, places))
    tokens = new(batch, places, dtype=torch.long)
    log_base = _log_base(boost, base)
    _run("play", batch, 4 * places, field, counts, divisors, n, k, rounds, log_base, threshold,
         pairs, shares, weights, slots, tokens, leaf_weights, carriers)  # fmt: skip

    r, positions = int(carriers.sum()), new(batch, k, dtype=torch.long)
    leaf, token, weight, slot = new(r, dtype=torch.long), new(r, dtype=torch.long), new(r), new(r, dtype=torch.long)
    _run("list", batch, places, tokens, leaf_weights, slots, carriers, n, k, rounds, threshold,
         leaf, token, weight, slot, positions)  # fmt: skip
    return Choice(Trees(pairs, shares, weights, divisors, slots), leaf, token, weight, slot), positions


def score_gradients(
    choice: Choice, n: int, grad_weight: Tensor, grad_slots: Tensor, boost: str, base: float
) -> tuple[Tensor, Tensor]:
    """`tournament.score_gradients`."""
    (batch, k), nodes = choice.trees.scores.shape, choice.trees.weights.shape[1]
    grad_scores, of_temperature = grad_weight.new_zeros(batch * n), grad_weight.new_empty(batch)
    pairs, shares, weights, divisor, _ = (x.contiguous() for x in choice.trees)
    divisors, rounds = divisor.expand(batch, 1).contiguous(), rounds_between(nodes + k, k)
    leaf, token = choice.leaf.contiguous(), choice.token.contiguous()
    grad_weight, grad_slots, log_base = grad_weight.contiguous(), grad_slots.contiguous(), _log_base(boost, base)
    _run("score_gradients", batch, 4 * (nodes + k), pairs, shares, weights, divisors, leaf, token, len(leaf), k,
         rounds, log_base, grad_weight, grad_slots, grad_scores, of_temperature)  # fmt: skip
    return grad_scores, of_temperature.sum()


def pool_gradients(
    grad: Tensor, values: Tensor, token: Tensor, weight: Tensor, slot: Tensor, of_values: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The backward of `slots.pool_rows`.

    Args:
        grad, values: [B * k, d], [B * n, d].
        token, weight, slot: [r], see `slots.Rows`.
        of_values, of_weight: whether this gradient is wanted.

    Returns:
        The gradients of values and of weight, None for one that is not wanted.
    """
    if len(slot) and not 0 <= int(slot[0]) <= int(slot[-1]) < len(grad):
        raise IndexError(f"expected slots in 0..{len(grad) - 1}, got {int(slot[0])}..{int(slot[-1])}")
    grad, values, token, weight, slot = (x.contiguous() for x in (grad, values, token, weight, slot))
    (tokens, d), r = values.shape, len(token)
    grad_weight = torch.empty_like(weight) if of_weight else None
    if 2 * r > tokens:
        grad_values = in_huge_pages(torch.empty_like(values)) if of_values else None
        carrier = token.new_full((tokens,), -1).index_copy_(0, token, torch.arange(r, device=token.device))
        _run("pool_gradients_by_token", tokens, d, grad, values, carrier, weight, slot, d, grad_values, grad_weight)
    else:
        grad_values = in_huge_pages(torch.empty_like(values)).zero_() if of_values else None
        _run("pool_gradients_by_carrier", r, d, grad, values, token, weight, slot, d, grad_values, grad_weight)
    return grad_values, grad_weight


def _run(name: str, rows: int, size: int, *arguments: Any) -> None:
    """Call a function of tournament.c for so many rows of a size, in parts if there is enough for several threads."""
    dtype = next(x.dtype for x in arguments if isinstance(x, Tensor) and x.dtype in TYPES)
    function = getattr(LIBRARY, f"{name}_{TYPES[dtype]}")
    threads = max(1, min(torch.get_num_threads(), rows, rows * size // ENOUGH + 1))
    parts = list(pairwise(rows * part // threads for part in range(threads + 1)))
    if any(share(lambda *part: function(*part, *arguments), parts)):
        raise MemoryError("not enough memory for the tournament of successive halving")


def _log_base(boost: str, base: float) -> float:
    """Of the powers that scores are compared by; 0: they are compared as they are."""
    return math.log(base) if boost == "power" else 0.0
