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
from shtopk.integrations.layers.between import device_of, with_gradients_of, with_gradients_of_scores
from shtopk.pooling import TopKPooling


class ForwardPass:
    """One pass through an encoder's layers.

    Attributes:
        of: the module that runs the layers, or that it is a replica of.
        poolings: all poolings of the encoder, by layer.
        due: (layer, pooling) of the poolings that have not run yet, lowest layer first.
        assignment: which tokens the present vectors are made of; None before the first pooling.
        outer: the pass of another encoder, if this one runs inside it.
        compiled: whether the running code was made by a compiler.
    """

    def __init__(self, of: nn.Module, poolings: Any, outer: ForwardPass | None):
        self.of, self.poolings, self.outer = of, poolings, outer
        self.due: list[tuple[int, Any]] = [(int(layer), pooling) for layer, pooling in poolings.items()]
        self.assignment: Assignment | None = None
        self.compiled = torch.compiler.is_compiling()

    def pool(self, pooling: TopKPooling, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool [B, n, d] to [B, k, d]; also returns the position of each slot among the n."""
        device = device_of(pooling, hidden_states)
        hidden_states, mask = hidden_states.to(device), None if mask is None else mask.to(device)
        n = hidden_states.shape[1]
        if n <= len(pooling.options.protected):
            mask = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool) if mask is None else mask
            vectors = with_gradients_of([pooling], hidden_states)
            assignment = Assignment.of_every_token(mask, hidden_states.dtype)
        else:
            k = pooling.current_k
            if not isinstance(k, float) and n < k:  # not min(k, n), which is no number where n is dynamic
                k = n
            pooled = pooling(hidden_states, mask, k=k)
            vectors, assignment = with_gradients_of_scores(pooled), pooled.assignment
        before = None if self.assignment is None else self.assignment.map(lambda x: x.to(device))
        self.assignment = assignment if before is None else before.then(assignment)
        return vectors, assignment.positions


class Call:
    """A call of a model that will report what was kept.

    Attributes:
        of: the model.
        stack: the module inside that runs the layers.
        outer: the call around it.
    """

    def __init__(self, model: nn.Module, stack: nn.Module, outer: Call | None):
        self.of, self.stack, self.outer = model, stack, outer


def still_under_way(innermost: Any, of: nn.Module) -> Any:
    """The innermost call or pass when one of a module begins. No model runs inside itself: one of the same module was
    interrupted, as by Ctrl-C, which skips the hooks that end it, and so was all inside it.
    """
    found = innermost
    while found is not None:
        if found.of is of:
            innermost = found.outer
        found = found.outer
    return innermost


class ThreadState(threading.local):
    """The state of one thread.

    Attributes:
        running: the innermost pass under way.
        finished: the last pass that ended, until the outermost model has reported it.
        called: the innermost call of a model that will report it.
    """

    running: ForwardPass | None = None
    finished: ForwardPass | None = None
    called: Call | None = None


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
        self.called: Call | None = None

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

    def mask_of(self, stack: nn.Module) -> Tensor | None:
        """[B, k] bool, True for the slots that hold a token, of the pass through a stack that just ended; None: none
        did, or nothing was pooled.
        """
        forward_pass = self.get_finished()
        if forward_pass is None or forward_pass.of is not stack or forward_pass.assignment is None:
            return None
        return forward_pass.assignment.mask

    def get_called(self) -> Call | None:
        return self.called if torch.compiler.is_compiling() else self.of_thread.called

    def set_called(self, call: Call | None) -> None:
        self.called = call
        if not torch.compiler.is_compiling():
            self.of_thread.called = call

    def begin_call(self, model: nn.Module, stack: nn.Module) -> None:
        """Begin a call of a model with this stack inside."""
        self.set_called(Call(model, stack, still_under_way(self.get_called(), model)))

    def end_call(self, model: nn.Module) -> None:
        """End it. The outermost one around a stack lets go of what was kept."""
        call = self.get_called()
        if call is None or call.of is not model:  # it failed before it began
            return
        self.set_called(call.outer)
        around = call.outer
        while around is not None and around.stack is not call.stack:
            around = around.outer
        if around is None:
            self.set_finished(None)


STATE = State()
