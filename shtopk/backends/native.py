"""The operators in C, for float32 and float64 on a CPU: the slow steps of tensors.py, written out.

Values may be bfloat16, too, as autocast makes them. Installing shtopk compiles tournament.c if there is a C compiler.
Without one, tensor operations do the same work.
"""

from __future__ import annotations

import ctypes
import importlib.util
import warnings
from collections.abc import Container
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.backends.carriers import Carriers, pool_carriers
from shtopk.backends.clusters import CLOSEST, candidates_for
from shtopk.backends.face import Answer, Saved
from shtopk.backends.memory import empty_like
from shtopk.backends.tensors import Tensors
from shtopk.backends.threads import parallel_map
from shtopk.backends.tournament import Trees, negligible, reach, rounds_between
from shtopk.rule import Rule

TYPES = {torch.float32: "float", torch.float64: "double"}
OF_VALUES = TYPES | {torch.bfloat16: "bfloat16"}  # with weights in float32
OF_VECTORS = ("lead", "join", "pool_gradients_by_carrier", "pool_gradients_by_token")
ENOUGH = 2**17  # numbers for which a second thread pays
PLAYED = 8  # so many numbers are read in the time that a tournament takes for one
VERSION = 7  # of tournament.c


class _Address:
    """Hands a tensor to C as its address. A tensor that is passed to a call lives until the call returns."""

    @staticmethod
    def from_param(tensor: Tensor | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def open_library() -> ctypes.CDLL | None:
    """Open the compiled tournament.c; None if it is not there, or cannot be used."""
    found = importlib.util.find_spec("shtopk.backends._tournament")
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
    """Declare the types of the functions' arguments."""
    tensor, integer, real = _Address, ctypes.c_int64, ctypes.c_double
    arguments = {  # after the first row and the one after the last
        "field": [tensor, integer, integer, ctypes.c_int, real, real, *[tensor] * 3],
        "play": [*[tensor] * 3, *[integer] * 3, real, real, *[tensor] * 7],
        "list": [*[tensor] * 4, *[integer] * 3, real, *[tensor] * 5],
        "score_gradients": [*[tensor] * 6, *[integer] * 3, real, *[tensor] * 4],
        "lead": [tensor, tensor, *[integer] * 4, real, tensor, tensor],
        "join": [*[tensor] * 4, *[integer] * 3, real, tensor],
        "weigh": [tensor, tensor, integer, integer, real, *[tensor] * 9],
        "pool_gradients_by_carrier": [*[tensor] * 5, integer, *[tensor] * 2],
        "pool_gradients_by_token": [*[tensor] * 5, integer, *[tensor] * 2],
    }
    for name, types in arguments.items():
        for suffix in (OF_VALUES if name in OF_VECTORS else TYPES).values():
            getattr(library, f"{name}_{suffix}").argtypes = [integer, integer, *types]


LIBRARY = open_library()


def readable(*tensors: Tensor, types: Container[torch.dtype] = TYPES) -> bool:
    """Whether C can read the memory of these tensors, all of one of the types.

    It cannot while a compiler traces them; the compiler then takes tensor operations as they are.
    """
    dtype = tensors[0].dtype
    return (
        dtype in types
        and not torch.compiler.is_compiling()
        and all(_in_memory(x) and x.dtype == dtype for x in tensors)
    )


def _in_memory(x: Tensor) -> bool:
    """Whether a tensor is just numbers in the CPU's memory: no subclass, no lazy negation, no placeholder."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not x.is_neg()
        and (x.data_ptr() != 0 or x.numel() == 0)
    )


class Native(Tensors):
    """C for tensors that it can read, tensor operations for others. Both save the same for the backward pass."""

    def serves(self, values: Tensor, scores: Tensor) -> bool:
        return LIBRARY is not None and not torch.compiler.is_compiling() and _in_memory(scores)

    def play(self, scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Trees, Tensor, Carriers, Tensor]:
        if not readable(scores):
            return super().play(scores, temperature, k, rule)
        (batch, n), scores = scores.shape, scores.contiguous()
        new, threshold = scores.new_empty, negligible(scores.dtype, n, k)
        divisors, counts, carriers = new(batch, 1), new(batch, dtype=torch.long), new(batch, dtype=torch.long)
        field = new(batch, n, 2)  # a score and an index for each token that plays
        below = reach(scores.dtype, n, k, rule)
        _run(
            "field", batch, PLAYED * n, scores, n, k, rule.relative, float(temperature), below, divisors, counts, field
        )

        rounds = rounds_between(max([k, *counts.tolist()]), k)
        places = k * 2**rounds
        pairs, shares = new(batch, places - k, 2), new(batch, places - k, 2)
        weights, slot_scores, leaf_weights = (new(batch, size) for size in (places - k, k, places))
        tokens = new(batch, places, dtype=torch.long)
        _run("play", batch, 4 * PLAYED * places, field, counts, divisors, n, k, rounds, rule.log_base, threshold,
             pairs, shares, weights, slot_scores, tokens, leaf_weights, carriers)  # fmt: skip

        r, positions = int(carriers.sum()), new(batch, k, dtype=torch.long)
        leaf, token, slot = (new(r, dtype=torch.long) for _ in range(3))
        weight = new(r)
        _run("list", batch, PLAYED * places, tokens, leaf_weights, slot_scores, carriers, n, k, rounds, threshold,
             leaf, token, weight, slot, positions)  # fmt: skip
        return Trees(pairs, shares, weights, divisors, slot_scores), leaf, Carriers(token, weight, slot), positions

    def merge(self, values: Tensor, scores: Tensor, logits: Tensor, k: int) -> tuple[Answer, Saved]:
        if not readable(logits, scores):
            return super().merge(values, scores, logits, k)
        (batch, n), new = logits.shape, logits.new_empty
        logits, scores, least = logits.contiguous(), scores.contiguous(), negligible(logits.dtype, n, k)
        slots = self.partition(values, logits, k)
        weights, slot_scores, filled = new(batch, n), new(batch, k), new(batch, k, dtype=torch.bool)
        positions, count = new(batch, k, dtype=torch.long), new(1, dtype=torch.long)
        token, slot, weight = new(batch * n, dtype=torch.long), new(batch * n, dtype=torch.long), new(batch * n)
        _run("weigh", batch, 0, logits, scores, n, k, least, slots, weights, slot_scores, filled, positions,
             token, weight, slot, count, threads=1)  # fmt: skip
        r = int(count)
        found = Carriers(token[:r], weight[:r], slot[:r])
        answer = Answer(pool_carriers(values, found, k), slot_scores, filled, positions, weights, slots)
        return answer, (values, *found)

    def partition(self, values: Tensor, logits: Tensor, k: int) -> Tensor:
        if torch.promote_types(values.dtype, torch.float32) != logits.dtype or values.dtype not in OF_VALUES:
            values = values.to(logits.dtype)
        if not (readable(logits) and readable(values, types=OF_VALUES)):
            return super().partition(values, logits, k)
        (batch, n, d), values, logits = values.shape, values.contiguous(), logits.contiguous()
        most, new = candidates_for(k, n), logits.new_empty
        leaders, slots = new(batch, k, dtype=torch.long), new(batch, n, dtype=torch.long)
        directions, least = new(batch, k, d), negligible(logits.dtype, n, k)
        _run("lead", batch, k * most * d, values, logits, n, d, k, most, CLOSEST, leaders, directions)
        _run("join", batch, k * n * d, values, logits, leaders, directions, n, d, k, least, slots)
        return slots

    def score_gradients(
        self, trees: Trees, leaf: Tensor, token: Tensor, n: int, grad_weight: Tensor, grad_slot_scores: Tensor,
        rule: Rule,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if not readable(grad_weight, grad_slot_scores, *trees):
            return super().score_gradients(trees, leaf, token, n, grad_weight, grad_slot_scores, rule)
        (batch, k), nodes = trees.slot_scores.shape, trees.weights.shape[1]
        grad_scores, of_temperature = grad_weight.new_zeros(batch * n), grad_weight.new_empty(batch)
        pairs, shares, weights, divisor, _ = (x.contiguous() for x in trees)
        divisors, rounds = divisor.expand(batch, 1).contiguous(), rounds_between(nodes + k, k)
        leaf, token = leaf.contiguous(), token.contiguous()
        grad_weight, grad_slot_scores = grad_weight.contiguous(), grad_slot_scores.contiguous()
        _run("score_gradients", batch, 4 * PLAYED * (nodes + k), pairs, shares, weights, divisors, leaf, token,
             len(leaf), k, rounds, rule.log_base, grad_weight, grad_slot_scores, grad_scores,
             of_temperature)  # fmt: skip
        return grad_scores, of_temperature.sum()

    def carrier_gradients(
        self, gradient: Tensor, values: Tensor, found: Carriers, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        weights_type = torch.promote_types(values.dtype, torch.float32)
        if not (readable(gradient, values, types=OF_VALUES) and readable(found.weight, types=[weights_type])):
            return super().carrier_gradients(gradient, values, found, of_values, of_weights)
        slot = found.slot
        if len(slot) and not 0 <= int(slot[0]) <= int(slot[-1]) < len(gradient):
            raise IndexError(f"expected slots in 0..{len(gradient) - 1}, got {int(slot[0])}..{int(slot[-1])}")
        gradient, values, token, weight, slot = (x.contiguous() for x in (gradient, values, *found))
        (tokens, d), r = values.shape, len(token)
        grad_weight = torch.empty_like(weight) if of_weights else None
        grad_values = empty_like(values) if of_values else None
        if 2 * r > tokens:
            carrier = token.new_full((tokens,), -1).index_copy_(0, token, torch.arange(r, device=token.device))
            _run("pool_gradients_by_token", tokens, d, gradient, values, carrier, weight, slot, d,
                 grad_values, grad_weight)  # fmt: skip
        else:
            if grad_values is not None:
                grad_values.zero_()
            _run("pool_gradients_by_carrier", r, d, gradient, values, token, weight, slot, d, grad_values, grad_weight)
        return grad_values, grad_weight


def _run(name: str, rows: int, size: int, *arguments: Any, threads: int | None = None) -> None:
    """Call a function of tournament.c for so many rows of a size, in several threads if there is enough work."""
    dtype = next(x.dtype for x in arguments if isinstance(x, Tensor) and x.dtype in OF_VALUES)
    function = getattr(LIBRARY, f"{name}_{OF_VALUES[dtype]}")
    if threads is None:
        threads = max(1, min(torch.get_num_threads(), rows, rows * size // ENOUGH + 1))
    parts = list(pairwise(rows * part // threads for part in range(threads + 1)))
    if any(parallel_map(lambda *part: function(*part, *arguments), parts)):
        raise MemoryError("not enough memory for the tournament of successive halving")
