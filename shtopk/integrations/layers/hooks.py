"""Hooks on an encoder's layers, and on the models around them.

The input of a layer is pooled before the layer sees it. This layer and those above get further arguments for every
token, such as masks and positions. These are gathered at the heaviest token of each slot. The hooks hold no state;
`state` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from shtopk.assignment import Assignment
from shtopk.integrations.layers.arguments import as_called, by_name
from shtopk.integrations.layers.between import LayerHook
from shtopk.integrations.layers.families import Family
from shtopk.integrations.layers.state import STATE, ForwardPass, still_under_way
from shtopk.selection import Choice


class PoolInput(LayerHook):
    """Runs before a layer: pool the input if a pooling is due, and let the other arguments follow the tokens."""

    def __init__(self, layer: nn.Module, index: int, family: Family, stack: nn.Module):
        super().__init__(layer)
        self.index, self.family, self.stack = index, family, stack
        self.names = list(inspect.signature(layer.forward).parameters)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        forward_pass = STATE.get_running()
        if forward_pass is None or forward_pass.of is not self.stack:
            return None
        given = by_name(self.names, args, kwargs)
        hidden_states = given.pop(self.names[0])
        local: Tensor | None = None  # [B, k] positions of the slots among the vectors of the layer below
        while forward_pass.due and forward_pass.due[0][0] <= self.index:  # lower, where layerdrop skipped a layer
            pooling = forward_pass.due.pop(0)[1]
            self.check(given, hidden_states.shape[1])
            before = forward_pass.assignment
            mask = self.real_tokens(given.get("attention_mask")) if before is None else before.mask
            hidden_states, positions = forward_pass.pool(pooling, hidden_states, mask)
            local = positions if local is None else local.gather(1, positions)
        if forward_pass.assignment is not None:
            self.gather(layer, given, forward_pass.assignment, local)
        given = {self.names[0]: hidden_states} | given
        return as_called(self.names, args, given)

    def gather(self, layer: nn.Module, given: dict, assignment: Assignment, local: Tensor | None) -> None:
        """Turn arguments for all tokens into arguments for the slots.

        An argument that each layer returns for the next (T5's position bias) has entries for the slots already. It is
        gathered only if the vectors have just been pooled.
        """
        for name, follow in self.family.gathers.items():
            positions = local if name == self.family.handed_on else assignment.positions
            if given.get(name) is not None and positions is not None:
                given[name] = follow(given[name], positions, layer)
        if given.get("attention_mask") is not None:
            given["attention_mask"] = self.without_empty_slots(given["attention_mask"], assignment.mask)

    def check(self, given: dict, n: int) -> None:
        """Refuse a tensor that has a dimension of n, but is not known to follow the tokens."""
        for name, x in given.items():
            known = name in self.family.gathers or name in self.family.ignored
            if x is None or known or not (isinstance(x, Tensor) and n in x.shape):
                continue
            raise ValueError(
                f"expected a layer that takes {', '.join(self.family.gathers)} of all {n} tokens; got {name} "
                f"{list(x.shape)} as well, which is not known to follow the tokens that are kept; leave it out"
            )

    def real_tokens(self, mask: Any) -> Tensor | None:
        """[B, n] bool from the layer's attention mask, of tokens or of pairs; None: all tokens are real."""
        if mask is None:
            return None
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"expected an attention mask that is a tensor, got {type(mask).__name__}; load the model with "
                "attn_implementation='sdpa' or 'eager'"
            )
        if mask.dim() != 4:
            return mask != 0
        mask = mask[:, 0]
        # A real token attends to itself, in a sliding window too: the diagonal tells.
        mask = mask[:, 0] if mask.shape[1] == 1 else mask.diagonal(dim1=-2, dim2=-1)
        return mask >= 0 if mask.is_floating_point() and self.family.additive else mask != 0

    def without_empty_slots(self, mask: Tensor, filled: Tensor) -> Tensor:
        """Hide the slots that hold no token in a gathered mask."""
        filled = filled.to(mask.device)
        if mask.dim() == 2:
            return mask * filled
        if mask.dtype == torch.bool:
            return mask & filled[:, None, None, :]
        hidden = torch.finfo(mask.dtype).min if mask.is_floating_point() and self.family.additive else 0
        return mask.masked_fill(~filled[:, None, None, :], hidden)


class BeginPass:
    """Runs before the layers: begin a forward pass, of tokens alone.

    A replica that `nn.DataParallel` makes of a stack has the same hooks. So a pass goes by the stack that was hooked.

    Args:
        stack: the module that runs the layers.
        family: of the encoder.
        inputs: the hooks on the layers.
    """

    def __init__(self, stack: nn.Module, family: Family, inputs: Sequence[PoolInput]):
        self.stack, self.family, self.inputs = stack, family, inputs

    def __call__(self, stack: Any, args: tuple, kwargs: dict) -> None:
        cache = kwargs.get("past_key_values")
        if cache is not None and (before := int(cache.get_seq_length())):
            raise ValueError(
                f"expected no past_key_values in an encoder that pools, got {before}, as of PEFT's prefix tuning; "
                "take prompt tuning or LoRA"
            )
        config = getattr(stack, "config", None)
        flash = "flash" in str(getattr(config, "_attn_implementation", None))
        if flash and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise ValueError(
                "expected attention that is told positions, got flash attention, whose sliding window would count "
                "the slots; load the model with attn_implementation='sdpa' or 'eager'"
            )
        if not torch.compiler.is_compiling():
            layers = getattr(stack, self.family.layers)
            for pool_input in self.inputs:
                pool_input.move_to(layers[pool_input.index])
        outer = still_under_way(STATE.get_running(), self.stack)
        STATE.set_running(ForwardPass(self.stack, stack.pooling, outer))


class EndPass:
    """Runs after the layers, also if one of them failed, or the pass before it began: end the forward pass.

    Args:
        stack: as above.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, stack: nn.Module, args: tuple, output: Any) -> None:
        forward_pass = STATE.get_running()
        if forward_pass is not None and forward_pass.of is self.stack:
            STATE.set_running(forward_pass.outer)
            STATE.set_finished(forward_pass)


class BeginCall:
    """Runs before the stack and before every model around it: begin a call that will report what was kept.

    Args:
        stack: the module that runs the layers.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, model: nn.Module, args: tuple) -> None:
        STATE.begin_call(model, self.stack)


class ReportAssignment:
    """Runs after the stack and after every model around it: add what was kept to the output, as attributes, not keys.

    Args:
        stack: path of the stack inside the model.
    """

    def __init__(self, stack: str):
        self.stack = stack

    def __call__(self, model: nn.Module, args: tuple, output: Any) -> Any:
        forward_pass = STATE.get_finished()
        STATE.end_call(model)
        assignment = None if forward_pass is None else forward_pass.assignment
        if forward_pass is None or assignment is None or not isinstance(output, ModelOutput):
            return None
        if forward_pass.poolings is model.get_submodule(self.stack).pooling:
            output.pooled_attention_mask, output.assignment = assignment.mask, assignment
            output.choice = Choice.of(None, None, assignment)  # for the model code inside checkpoints of 0.1.0
        return output
