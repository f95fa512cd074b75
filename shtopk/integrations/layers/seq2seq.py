"""Hooks that carry the mask of the slots from a pooled encoder to the decoder, in training and in `generate`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers.utils import ModelOutput

from shtopk.integrations.layers.arguments import as_called, by_name
from shtopk.integrations.layers.state import STATE


class CarryMask:
    """Runs after the encoder: add the mask of the slots to its output, which `generate` keeps for all steps.

    Args:
        stack: the module that runs the encoder's layers.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, encoder: nn.Module, args: tuple, output: Any) -> Any:
        mask = STATE.mask_of(self.stack)
        if mask is not None and isinstance(output, ModelOutput):
            output["attention_mask"] = mask.long()
        return output


class TakeMask:
    """Runs before the encoder-decoder: if encoder_outputs are given, use their mask instead of that of the tokens.

    Raises:
        ValueError: when called with outputs without a mask of their own, and a mask of another length.
    """

    def __init__(self, model: nn.Module):
        self.names = list(inspect.signature(model.forward).parameters)

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        STATE.set_finished(None)
        given = by_name(self.names, args, kwargs)
        encoded, mask = given.get("encoder_outputs"), given.get("attention_mask")
        slots = getattr(encoded, "attention_mask", None)
        if slots is None:
            if encoded is not None and mask is not None and mask.shape[1] != encoded[0].shape[1]:
                raise ValueError(
                    f"expected an attention_mask [B, {encoded[0].shape[1]}] of the slots in encoder_outputs, got "
                    f"{list(mask.shape)}; give all that get_encoder() returned, which says which slots are filled"
                )
            return None
        given["attention_mask"] = slots
        return as_called(self.names, args, given)


class AttendToSlots:
    """Runs before the decoder: replace the mask of the tokens by that of the slots.

    Args:
        stack: as above.
    """

    def __init__(self, stack: nn.Module):
        self.stack = stack

    def __call__(self, decoder: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        mask = STATE.mask_of(self.stack)
        return None if mask is None else (args, kwargs | {"encoder_attention_mask": mask.long()})
