"""What a forward pass has pooled so far, kept outside the model.

Each thread has its own, as copies of a model may run side by side. It is a stack, as a pooled model may run inside
another.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.assignment import Assignment
from shtopk.pooling import TopKPooling


class ForwardPass:
    """One pass through an encoder's layers.

    Attributes:
        poolings: all poolings of the encoder, by layer.
        due: (layer, pooling) of the poolings that have not run yet, lowest layer first.
        assignment: which tokens the present vectors are made of; None before the first pooling.
        outer: the pass of another encoder, if this one runs inside it.
        compiled: whether the running code was made by a compiler.
    """

    def __init__(self, poolings: nn.ModuleDict, outer: ForwardPass | None):
        self.poolings, self.outer = poolings, outer
        self.due: list[tuple[int, Any]] = [(int(layer), pooling) for layer, pooling in poolings.items()]
        self.assignment: Assignment | None = None
        self.compiled = torch.compiler.is_compiling()

    def pool(self, pooling: TopKPooling, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool [B, n, d] to [B, k, d]; also returns the position of each slot among the n."""
        n = hidden_states.shape[1]
        if n <= len(pooling.options.protected):
            mask = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool) if mask is None else mask
            vectors, assignment = hidden_states, Assignment.of_every_token(mask, hidden_states.dtype)
        else:
            k = pooling.current_k
            if not isinstance(k, float) and n < k:  # not min(k, n), which is no number where n is dynamic
                k = n
            pooled = pooling(hidden_states, mask, k=k)
            vectors, assignment = pooled.values, pooled.assignment
        self.assignment = assignment if self.assignment is None else self.assignment.then(assignment)
        return vectors, assignment.positions


class ThreadState(threading.local):
    """The state of one thread.

    Attributes:
        running: the innermost pass under way.
        finished: the last pass that ended, until the outermost model has reported it.
        depth: how many models that will report are under way, one inside the other.
    """

    running: ForwardPass | None = None
    finished: ForwardPass | None = None
    depth: int = 0


class State:
    """The forward pass under way, for each thread.

    torch.compile cannot trace thread-locals, so compiled code uses one copy for the whole process. Every eager write
    updates both, so a compiled layer works in an eager model. An eager model also finds a pass that compiled code
    finished.
    """

    def __init__(self) -> None:
        self.of_thread = ThreadState()
        self.running: ForwardPass | None = None
        self.finished: ForwardPass | None = None
        self.depth = 0

    def get_running(self) -> ForwardPass | None:
        return self.running if torch.compiler.is_compiling() else self.of_thread.running

    def set_running(self, forward_pass: ForwardPass | None) -> None:
        self.running = forward_pass
        if not torch.compiler.is_compiling():
            self.of_thread.running = forward_pass

    def get_finished(self) -> ForwardPass | None:
        if torch.compiler.is_compiling():
            return self.finished
        if self.of_thread.finished is None and self.finished is not None and self.finished.compiled:
            return self.finished
        return self.of_thread.finished

    def set_finished(self, forward_pass: ForwardPass | None) -> None:
        self.finished = forward_pass
        if not torch.compiler.is_compiling():
            self.of_thread.finished = forward_pass

    def change_depth(self, step: int) -> int:
        """Go one model deeper (1) or back (-1); returns the new depth."""
        if torch.compiler.is_compiling():
            self.depth = max(0, self.depth + step)
            return self.depth
        self.depth = self.of_thread.depth = max(0, self.of_thread.depth + step)
        return self.of_thread.depth  # not self.depth, which other threads write too


STATE = State()
