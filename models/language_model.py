"""A causal language model that pools its prompt: built around a pretrained one, and made ready to complete prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.decoders.families import FAMILIES

from .backbone import commit_of, one_line_errors, set_dropout
from .pretrained import MAIN, load_config
from .windows import positions_of

NEW_TOKENS = 128  # of a completion, where nothing says how long one may be


def language_model(
    backbone: str | None,
    k_by_layer: Mapping[Any, int | float] | None,
    *,
    keep_last: int = 1,
    backbone_revision: str | None = None,
    backbone_sha256: str | None = None,
    backbone_dropout: float | None = None,
    attn_implementation: str | None = None,
    **options: Any,
) -> Any:
    """Load a pretrained causal language model, and let it pool its prompts. The poolings are new.

    Args:
        backbone: folder or hub name.
        k_by_layer: {layer: k}, as `pool_decoder` takes it.
        keep_last: tokens at the end of a prompt that are kept whole, >= 1.
        backbone_revision: branch, tag or commit on the hub; None: the newest.
        backbone_sha256: expected SHA-256 of its model.safetensors.
        backbone_dropout: dropout inside it, in [0, 1); None: its own.
        attn_implementation: of its attention; None: its own way.
        options: of the poolings, by name.

    Returns:
        The model in float32, with `backbone_commit` and `new_parameters` as the models of this package have them.

    Raises:
        ValueError: no backbone or one of another kind, weights that are missing, or options that do not fit.
    """
    if backbone is None:
        raise ValueError("expected a backbone that completes prompts, a causal language model, got none; name one "
                         "with --backbone, a folder or a hub name")  # fmt: skip
    if k_by_layer is None:
        raise ValueError("expected k_by_layer, such as 8:256: from which layer on a prompt is pooled, and to how many "
                         "vectors; got none")  # fmt: skip
    name, config = load_config(backbone, "a language model", backbone_sha256, backbone_revision)
    if config.model_type not in FAMILIES:
        raise ValueError(f"expected a causal language model as backbone ({', '.join(FAMILIES)}), got one of type "
                         f"{config.model_type}: {name}")  # fmt: skip
    set_dropout(config, backbone_dropout)
    with one_line_errors(f"cannot load the weights of {name}"):
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            revision=commit_of(config) or MAIN,  # the weights that belong to this configuration
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"they lack {len(missing)} tensors of the model, such as {missing[0]}")
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    given = {key: value for key, value in options.items() if key != "protected" or value}  # its default is the model's
    pool_decoder(model, k_by_layer, keep_last=keep_last, **given)
    model.backbone_commit, model.new_parameters = commit_of(config), frozenset()
    return model


def completes(model: Any) -> bool:
    """Whether a model completes prompts: a causal language model."""
    return model.can_generate() and not model.config.is_encoder_decoder


def set_completions(model: Any, *, max_new_tokens: int, **options: Any) -> None:
    """Set how a language model completes prompts by default: with the likeliest tokens, unless the options say else.
    What the backbone had for sampling or against repetition is dropped; the settings are saved with the model.

    Args:
        max_new_tokens: of a completion.
        options: further settings of transformers' `GenerationConfig`.

    Raises:
        ValueError: no room for a prompt, or an option that transformers refuses.
    """
    positions = positions_of(model.config)
    if positions is not None and max_new_tokens >= positions:
        raise ValueError(f"expected completions of less than {positions} tokens, as the model has positions; got "
                         f"{max_new_tokens}; lower max_completion_tokens")  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    known = {name: getattr(model.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        settings = GenerationConfig(**({"max_new_tokens": max_new_tokens, "do_sample": False} | known | given))
        settings.validate(strict=True)
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error
    model.generation_config = settings


def let_complete(model: Any, tokenizer: Any) -> None:
    """Make a language model and its tokenizer ready to complete prompts in batches.

    Padding stands on the left. A completion ends with the token that ends a text, or with one that the model had for
    that before.
    """
    tokenizer.padding_side = "left"
    config = model.generation_config
    known = config.eos_token_id
    ends = [] if known is None else known if isinstance(known, list) else [known]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends = [*ends, tokenizer.eos_token_id]
    config.eos_token_id = ends or None
    config.pad_token_id = tokenizer.pad_token_id
    if config.max_new_tokens is None:
        config.update(max_length=None, max_new_tokens=NEW_TOKENS)


def most_prompt_tokens(model: Any) -> int | None:
    """How many tokens a prompt may have, so that its completion has room as well. None: any number.

    Raises:
        ValueError: a completion would need all positions of the model.
    """
    positions, new = positions_of(model.config), model.generation_config.max_new_tokens or NEW_TOKENS
    if positions is not None and positions <= new:
        raise ValueError(f"expected max_new_tokens below the {positions} positions of the model, got {new}; lower it")
    return None if positions is None else positions - new
