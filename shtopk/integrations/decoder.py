"""Pool the prompt between the layers of a causal language model, so that the layers above see and remember less."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeVar

from transformers import PreTrainedModel

from shtopk.integrations.adapters import PooledModel, let_adapters_forget, let_adapters_train
from shtopk.integrations.decoders.distillation import distillation_loss, unpooled
from shtopk.integrations.decoders.families import FAMILIES, Family
from shtopk.integrations.decoders.hooks import BeginPass, PoolPrompt, TakeRequest, end_pass, end_request, leave_layers
from shtopk.integrations.decoders.pieces import read_prompt
from shtopk.integrations.decoders.stack import PromptPooling, find_stack, pooled_stack
from shtopk.integrations.decoders.state import asking
from shtopk.options import PoolingOptions
from shtopk.pooling import TopKPooling

__all__ = ["distillation_loss", "pool_decoder", "read_prompt", "unpool_decoder", "unpooled"]

Model = TypeVar("Model", bound=PreTrainedModel)
PROTECTED = (0,)  # the first token, which attention goes to when it has nothing to look at


class PooledDecoder(PooledModel):
    """What `pool_decoder` makes of the class of a model, which keeps its name."""

    def generate(self, *args: Any, k: int | float | None = None, compress_mask: Any = None, **kwargs: Any) -> Any:
        """`generate` of the model, with what `pool_decoder` explains: k and compress_mask."""
        _check_generation(self, kwargs)
        with asking(k=k, compress_mask=compress_mask):
            return super().generate(*args, **kwargs)  # type: ignore[misc]


def pool_decoder(
    model: Model,
    k_by_layer: Mapping[int | str, int | float],
    options: PoolingOptions | None = None,
    *,
    keep_last: int = 1,
    **by_name: Any,
) -> Model:
    """Let a causal language model pool its prompt between its layers. The model is changed in place.

    With {8: 256} the layers below 8 (counted from 0) read the whole prompt. A new `TopKPooling` pools their vectors to
    256, and layer 8 and all above see, and remember in their cache, these 256 and whatever follows. {8: 512, 16: 128}
    pools twice. All this is done by hooks, so the model's code stays as it is; `unpool_decoder` removes them.

    What is pooled is the prompt but its last `keep_last` tokens. In training the labels tell where it ends: it is
    what stands before the first label that is not -100. A `compress_mask` [B, n] says otherwise: 1 for the tokens to
    pool, 0 for those to keep, and different numbers for parts that are pooled apart, each to k. It is an argument of
    the model's forward and of `generate`, as is k for this call. A prompt that has no more than k tokens to pool
    passes unchanged.

    What comes out has a vector for each token of the prompt again, but those that were not kept are 0, and those of
    slots know more of the prompt than what stands before them: predict nothing there.

    `save_pretrained` saves the poolings and their description with the model, and `load_pooled` loads both.

    Args:
        model: a causal language model that is loaded, of a type in `decoders.families.FAMILIES`, or the bare model
            inside.
        k_by_layer: {layer: k}, from layer 1 on, which layer 0 counts the tokens for; `TopKPooling` explains k.
        options: one record of options for the poolings of all layers.
        keep_last: >= 1 tokens at the end of the prompt that are kept whole.
        by_name: the options by name, instead; `shtopk.PoolingOptions` explains them. By default `protected` is (0,):
            the first token is always kept. Slots are pooled in eval mode as in training, which the layers above know.

    Returns:
        The model.

    Raises:
        ValueError: a model that cannot be pooled, or an impossible k_by_layer.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2)
        >>> lm = pool_decoder(LlamaForCausalLM(config).eval(), {1: 8})
        >>> prompt = torch.arange(100, 140).unsqueeze(0)
        >>> out = lm.generate(prompt, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, pad_token_id=0)
        >>> [layer.keys.shape[2] for layer in out.past_key_values.layers]
        [41, 10, 10, 10]
    """
    if find_stack(model) is not None:
        raise ValueError(f"this {type(model).__name__} is pooled already; call unpool_decoder first")
    record = install(model, k_by_layer, options, keep_last=keep_last, **by_name)
    description = {"k_by_layer": {str(layer): k for layer, k in k_by_layer.items()}, "keep_last": keep_last}
    model.config.decoder_pooling = description | record.to_dict()
    let_adapters_train(model, PooledDecoder)
    return model


def unpool_decoder(model: Model) -> Model:
    """Undo `pool_decoder`: remove the poolings from a model, in place. It then computes what it did before.

    Args:
        model: one that `pool_decoder` was called on.

    Returns:
        The model.

    Raises:
        ValueError: a model that is not pooled.
    """
    stack = pooled_stack(model)
    for handle in stack.prompt_pooling.handles:
        handle.remove()
    del stack.prompt_pooling
    for part in (model, stack):
        vars(part.config).pop("decoder_pooling", None)
    let_adapters_forget(model)
    return model


def install(
    model: Any,
    k_by_layer: Mapping[Any, int | float],
    options: PoolingOptions | None = None,
    *,
    keep_last: int = 1,
    **by_name: Any,
) -> PoolingOptions:
    """Do what `pool_decoder` does, but leave class and configuration alone.

    Returns:
        The options in force, defaults included.
    """
    stack, family = _find(model)
    layers = getattr(stack, family.layers)
    by_layer = _checked(k_by_layer, len(layers))
    if not isinstance(keep_last, int) or keep_last < 1:
        raise ValueError(f"expected keep_last >= 1, got {keep_last!r}: the last token predicts what follows")
    if by_name.get("eval_operator") is None:  # the layers above have learnt to read such slots
        by_name["eval_operator"] = by_name.get("operator", PoolingOptions().operator)
    record = options or PoolingOptions.of({"protected": PROTECTED} | by_name)
    record.to_dict()  # which a scorer of one's own has no place in: nothing could load it
    if not record.keep_order:
        raise ValueError("expected keep_order to be true between layers, got false; leave it out")
    poolings: dict[str, TopKPooling] = {}
    for index, k in by_layer.items():
        like = next(layers[index].parameters())
        pooling = TopKPooling(stack.config.hidden_size, k, record)
        poolings[str(index)] = pooling.to(like.device, like.dtype).train(stack.training)
    stack.prompt_pooling = PromptPooling(poolings, keep_last)
    handles = stack.prompt_pooling.handles
    for index, layer in enumerate(layers):
        hook = PoolPrompt(layer, index, family, stack.config)
        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    handles.append(layers[-1].register_forward_hook(leave_layers))
    handles.append(stack.register_forward_pre_hook(BeginPass(stack), with_kwargs=True))
    handles.append(stack.register_forward_hook(end_pass, always_call=True))
    if model is not stack:
        handles.append(model.register_forward_pre_hook(TakeRequest(model), with_kwargs=True))
        handles.append(model.register_forward_hook(end_request, always_call=True))
    return record


def _find(model: Any) -> tuple[Any, Family]:
    """Find (stack, family): the module that runs the layers."""
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"expected a model of transformers, got {type(model).__name__}")
    kind = model.config.model_type
    known = ", ".join(FAMILIES)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} has an encoder: call pool_encoder; pool_decoder is for {known}")
    family = FAMILIES.get(kind)
    if family is None:
        raise ValueError(f"cannot pool the prompts of a model of type {kind}; it works for {known}")
    stacks = [x for x in model.modules() if any(base.__name__ == family.stack for base in type(x).__mro__)]
    if not stacks or getattr(model.config, "add_cross_attention", False):
        raise ValueError(f"expected a causal language model of type {kind}, got {type(model).__name__}")
    return stacks[0], family


def _checked(k_by_layer: Mapping[Any, int | float], layers: int) -> dict[int, int | float]:
    """{layer: k}, checked, lowest layer first."""
    good = isinstance(k_by_layer, Mapping) and all(re.fullmatch(r"\d+", str(layer)) for layer in k_by_layer)
    by_layer = {int(layer): k_by_layer[layer] for layer in sorted(k_by_layer, key=int)} if good else {}
    if not by_layer or len(by_layer) < len(k_by_layer):
        raise ValueError(f"expected different layers and their k, such as {{8: 256}}, got {k_by_layer}")
    for layer in by_layer:
        if not 1 <= layer < layers:
            raise ValueError(f"expected layers in 1..{layers - 1} (layer 0 counts the tokens), got {layer}")
    counts = [k for k in by_layer.values() if isinstance(k, int)]
    if any(after >= before for before, after in pairwise(counts)):
        raise ValueError(f"expected fewer vectors at later layers, got {by_layer}")
    return by_layer


def _check_generation(model: Any, given: Mapping[str, Any]) -> None:
    """Refuse what would compress what is generated, or read a prompt otherwise than it was trained."""
    config = given.get("generation_config") or model.generation_config

    def setting(name: str) -> Any:
        return given[name] if given.get(name) is not None else getattr(config, name, None)

    if setting("use_cache") is False:
        raise ValueError("expected use_cache, without which every step would pool what was generated; leave it out")
    if given.get("assistant_model") is not None or setting("prompt_lookup_num_tokens") is not None:
        raise ValueError("assisted decoding of a pooled model is not supported; leave out the assistant")
    if setting("prefill_chunk_size") is not None:
        raise ValueError("expected a prompt in one piece, got prefill_chunk_size; call read_prompt before")
    mask = given.get("attention_mask")
    if mask is not None and mask.dim() == 2 and not bool(mask[:, -1].all()):
        raise ValueError("expected padding on the left to generate, got a row that ends in padding; set padding_side")
