"""Teach a pooled language model to say what it says without its poolings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from shtopk.integrations.decoders.installation import pooled_stack
from shtopk.integrations.decoders.regions import IGNORED, default_regions, given_regions
from shtopk.integrations.decoders.state import REQUEST, asking


@contextmanager
def unpooled(model: nn.Module) -> Iterator[None]:
    """A context in which a language model reads its prompts as it did before `pool_decoder`, in this thread.

    Args:
        model: one that `pool_decoder` was called on.

    Raises:
        ValueError: a model that is not pooled.

    Example:
        >>> with unpooled(lm):  # doctest: +SKIP
        ...     before = lm(**inputs).logits
    """
    with asking(unpooled=(*REQUEST.get().unpooled, pooled_stack(model).prompt_pooling)):
        yield


def distillation_loss(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    k: int | float | None = None,
    compress_mask: Tensor | None = None,
) -> Tensor:
    """How far what a pooled language model says is from what it says without its poolings.

    With p of the model that is not pooled, the teacher, and q of the pooled one, both of logits / temperature, it is
    `temperature**2 * mean(sum(p * log(p / q)))`, the mean over the tokens after the prompt, and over the last token of
    the prompt. It is 0 where nothing is pooled. No gradient flows through the teacher, which is in eval mode, and
    without the adapter of PEFT if the model has one. So with LoRA, or where scorers alone learn, it stays as it was
    pretrained. If all weights learn, it moves along: then add the loss on labels, or both may agree to say nothing.

    Args:
        model: a causal language model that `pool_decoder` was called on, or one of PEFT around it.
        input_ids: [B, n] prompts and what follows them.
        attention_mask: [B, n] nonzero for a token; None: all are tokens.
        labels: [B, n] -100 for the tokens of the prompt and what is not to be learnt from, anything for the others: it
            only matters where they stand. None: all of input_ids is the prompt, and what the model says after the
            tokens at its end that are kept whole counts.
        temperature: > 0. Above 1, unlikely tokens count more.
        k: as in the model's forward.
        compress_mask: [B, n] as in the model's forward.

    Returns:
        The loss, a scalar in float32.

    Raises:
        ValueError: a model that is not pooled, a temperature that is not above 0, nothing that follows a prompt, or
            `nn.DataParallel` on several devices.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from shtopk.integrations.decoder import pool_decoder
        >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2)
        >>> lm = pool_decoder(LlamaForCausalLM(config), {2: 8})
        >>> distillation_loss(lm, torch.arange(100, 140).unsqueeze(0)).backward()
        >>> lm.model.prompt_pooling["2"].scorer.weight.grad.any()
        tensor(True)
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature!r}")
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:  # each would be told of all the rows
        raise ValueError(
            f"expected a process for each device to distill, got nn.DataParallel on {len(model.device_ids)} of them; "
            "start it with torchrun, or let it see one"
        )
    said = _said(model, input_ids, attention_mask, labels, compress_mask)
    columns = said.any(0).nonzero().squeeze(-1)  # no other logits are computed
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": columns, "use_cache": False}
    with torch.no_grad(), _as_teacher(model):
        teacher = model(**inputs).logits
    with asking(of=pooled_stack(model), labels=labels, k=k, compress_mask=compress_mask):
        student = model(**inputs).logits
    at = said[:, columns]
    teacher, student = (log_softmax(x[at].float() / temperature, -1) for x in (teacher, student))
    return kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def _said(model: Any, input_ids: Tensor, mask: Tensor | None, labels: Tensor | None, marks: Tensor | None) -> Tensor:
    """[B, n] bool, True for the tokens after which the two are compared."""
    real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask != 0
    keep_last = pooled_stack(model).prompt_pooling.keep_last
    if labels is not None:
        said = torch.zeros_like(real)
        said[:, :-1] = (labels[:, 1:] != IGNORED) & real[:, 1:]
    else:
        regions = default_regions(real, keep_last) if marks is None else given_regions(marks, real)
        said = real & (regions.flip(-1).cumsum(-1).flip(-1) == 0)
    if not bool(said.any()):
        raise ValueError("expected labels other than -100 for what follows the prompts, got none; leave labels out")
    return said


@contextmanager
def _unadapted(model: Any) -> Iterator[None]:
    """A model without the adapters that are inside its layers, as transformers' `add_adapter` puts them there."""
    parts = [module for module in model.modules() if getattr(module, "disable_adapters", None) is False]
    for part in parts:
        part.enable_adapters(False)
    try:
        yield
    finally:
        for part in parts:
            part.enable_adapters(True)


@contextmanager
def _as_teacher(model: Any) -> Iterator[None]:
    """A model without poolings, dropout and adapter."""
    training = [module for module in model.modules() if module.training]
    adapter = next((x.disable_adapter() for x in model.modules() if hasattr(x, "disable_adapter")), _unadapted(model))
    for module in training:
        module.training = False
    try:
        with unpooled(model), adapter:
            yield
    finally:
        for module in training:
            module.training = True
