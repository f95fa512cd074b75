"""What an encoder is told of documents, a tensor for each argument: checked, so that nothing is swallowed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]  # input_ids or inputs_embeds, attention_mask, and others, each [B, L] or [B, L, d]

BESIDE_TOKENS = ("token_type_ids", "position_ids", "global_attention_mask")
OF_ENCODER = ("inputs_embeds", *BESIDE_TOKENS)
# Families that take an attention mask, and read padding all the same: by convolutions over it (CANINE, ConvBERT, SAM's
# texts), by embeddings that take in their neighbours' (MobileBERT), or by attention that is approximated over all
# places (Funnel, Nystromformer, YOSO).
READ_PADDING = frozenset({"canine", "convbert", "funnel", "mobilebert", "nystromformer", "sam3_lite_text_text_model",
                          "yoso"})  # fmt: skip


def checked_inputs(
    encoder: Callable[..., Any], input_ids: Tensor | None, attention_mask: Tensor | None, others: Mapping[str, Any]
) -> Inputs:
    """The inputs of an encoder by name, checked, with an attention mask and without what is None.

    Transformers' encoders take any argument and ignore those that they do not know. So their signature is asked.

    Args:
        encoder: it is to read them.
        input_ids: [B, L], L >= 1; None beside inputs_embeds.
        attention_mask: [B, L] nonzero for a real token; None: all are real.
        others: inputs_embeds [B, L, d] in place of input_ids; token_type_ids, position_ids and global_attention_mask
            [B, L] or [1, L]. An input of None is none. Token types of an encoder that knows one segment may be 0, and
            are left out.

    Raises:
        ValueError: neither or both of input_ids and inputs_embeds, another shape, an input that the encoder does not
            take, a second segment that it does not know, or an encoder whose vectors depend on padding.
    """
    given = {name: value for name, value in others.items() if value is not None}
    if "past_key_values" in given:
        raise ValueError("expected documents without past_key_values, got some, as of PEFT's prefix tuning; take "
                         "prompt tuning or LoRA")  # fmt: skip
    if unknown := sorted(given.keys() - set(OF_ENCODER)):
        raise ValueError(f"expected inputs among input_ids, attention_mask, {', '.join(OF_ENCODER)}; "
                         f"got {', '.join(unknown)}; leave it out")  # fmt: skip
    check_masks(getattr(encoder, "config", None))
    inputs = _tokens(input_ids, given.pop("inputs_embeds", None))
    (tokens,) = inputs.values()
    shape = tokens.shape[:2]
    inputs["attention_mask"] = (
        torch.ones(shape, dtype=torch.long, device=tokens.device) if attention_mask is None else attention_mask
    )
    given = without_segments(encoder, given)
    names = argument_names(encoder)
    for name, value in (inputs | given).items():
        if names is not None and name not in names:
            raise ValueError(f"expected an encoder that takes {name}, got a {type(encoder).__name__}, which does not; "
                             + ("its vectors depend on padding" if name == "attention_mask" else "leave it out")
                             )  # fmt: skip
        if tuple(value.shape[:2]) != tuple(shape) and (name not in given or value.shape != (1, shape[1])):
            raise ValueError(f"expected {name} {list(shape)} for as many tokens, got {list(value.shape)}")
        if name in given or name == "attention_mask":
            if value.dim() != 2:
                raise ValueError(f"expected {name} [B, L], got {list(value.shape)}")
            inputs[name] = value.expand(shape)
    return inputs


def check_masks(config: Any) -> None:
    """Raise ValueError for an encoder with this configuration whose vectors depend on padding in spite of its mask."""
    kind = getattr(config, "model_type", None)
    if kind in READ_PADDING:
        raise ValueError(f"expected an encoder whose vectors do not depend on padding, such as BERT, got one of type "
                         f"{kind}; name another")  # fmt: skip


def _tokens(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Inputs:
    if inputs_embeds is not None:
        if input_ids is not None:
            raise ValueError("expected input_ids or inputs_embeds, got both")
        if inputs_embeds.dim() != 3 or inputs_embeds.shape[1] == 0:
            raise ValueError(
                f"expected inputs_embeds [B, L, d] of at least one token, got {list(inputs_embeds.shape)}"
            )
        return {"inputs_embeds": inputs_embeds}
    if input_ids is None:
        raise ValueError("expected input_ids [B, L], got None")
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(f"expected input_ids [B, L] of at least one token, got {list(input_ids.shape)}")
    return {"input_ids": input_ids}


def without_segments(encoder: Any, given: Inputs) -> Inputs:
    """The inputs without token types that an encoder of one segment is given.

    Some take them and ignore them (DeBERTa), some would fail far inside (RoBERTa), some have no such argument.

    Raises:
        ValueError: there is a second segment.
    """
    names, types = argument_names(encoder), given.get("token_type_ids")
    known = getattr(getattr(encoder, "config", None), "type_vocab_size", None)  # XLNet has types without a number
    one_segment = (names is not None and "token_type_ids" not in names) or known in (0, 1)
    if types is None or not one_segment:
        return given
    if torch.compiler.is_compiling():  # which cannot look at values
        torch._assert_async((types == 0).all(), "expected token_type_ids of 0 alone for an encoder of one segment")
    elif (types != 0).any():
        raise ValueError(f"expected token_type_ids of 0 alone, as a {type(encoder).__name__} knows one segment; got "
                         f"{int(types.max())}; join the texts to one, or take an encoder such as BERT")  # fmt: skip
    return {name: value for name, value in given.items() if name != "token_type_ids"}


def argument_names(encoder: Any) -> frozenset[str] | None:
    """The names that an encoder's arguments have; None if it hands on whatever it gets, as wrappers do."""
    parameters = inspect.signature(encoder.forward if isinstance(encoder, nn.Module) else encoder).parameters.values()
    named = frozenset(one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
    return named or None


def gather(inputs: Inputs, index: Tensor) -> Inputs:
    """The tokens at index [B, m] of each row, with all that is told of them."""
    return {
        name: x.gather(1, index if x.dim() == 2 else index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))
        for name, x in inputs.items()
    }


def padding_last(attention_mask: Tensor) -> Tensor:
    """[B, L] the order of the places of each row in which its tokens come first, as they stand, and then padding."""
    real = attention_mask != 0
    after = real.sum(-1, keepdim=True) + (~real).cumsum(-1)
    place = torch.where(real, real.cumsum(-1), after) - 1  # [B, L] where each token goes
    here = torch.arange(real.shape[1], device=real.device).expand_as(place)
    return torch.zeros_like(place).scatter(1, place, here)


def taken_by(model: nn.Module, encoded: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer gave for single texts, without token types that the model does not take: they are all 0."""
    base: Any = model
    names = argument_names(base.get_base_model() if hasattr(base, "get_base_model") else base)  # of an adapter of PEFT
    return {name: value for name, value in encoded.items()
            if name != "token_type_ids" or names is None or name in names}  # fmt: skip
