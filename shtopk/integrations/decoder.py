"""Pool the prompt between the layers of a causal language model, so that the layers above see and remember less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from transformers import PreTrainedModel

from shtopk.integrations.adapters import let_adapters_forget, let_adapters_train
from shtopk.integrations.decoders.distillation import distillation_loss, unpooled
from shtopk.integrations.decoders.flow import record_assignments
from shtopk.integrations.decoders.generation import PooledDecoder
from shtopk.integrations.decoders.installation import check_head, find_stack, install, pooled_stack
from shtopk.integrations.decoders.pieces import read_prompt
from shtopk.integrations.layers.description import describe, forget, own_configurations
from shtopk.integrations.saved import load_pooled
from shtopk.options import PoolingOptions

__all__ = ["distillation_loss", "load_pooled", "pool_decoder", "read_prompt", "record_assignments", "unpool_decoder",
           "unpooled"]  # fmt: skip
Model = TypeVar("Model", bound=PreTrainedModel)


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
    pool, 0 for those to keep, and different numbers for regions that are pooled apart, each to k. It is an argument of
    the model's forward and of `generate`, as is k for this call. (`Trainer` drops a column of that name, unless its
    arguments have `remove_unused_columns=False`.) A prompt that has no more than k tokens to pool passes unchanged.
    What follows is never pooled, nor are later turns that come with the cache of a prompt.

    Each vector keeps the position of its token, a slot that of the token that leads it; sliding windows count tokens,
    too. A token that is kept sees what was chosen in a region only if it stands after the region's end.

    What comes out has a vector for each token of the prompt again, but those that were not kept are 0, and those of
    slots know more of the prompt than what stands before them: predict nothing there. Hidden states above a pooling
    have the vectors that came through.

    `save_pretrained` saves the poolings and their description with the model, and `load_pooled` loads both.
    `from_pretrained` of the model's class leaves the poolings out, though the configuration describes them.

    It works with sdpa, eager and flash attention, flash but for sliding windows and for tokens kept before the end of
    a region; with padding on either side, on the left to generate; and with `DynamicCache` and `StaticCache`. With the
    latter, layers above a pooling get a fixed size, too (a growing one if all layers of the model have a window), and
    a step compiles in one graph. A prompt compiles in several. Offloaded caches move these layers as any others;
    quantised ones are refused, as are assisted decoding and packed texts. PEFT's prefix tuning works without pooling
    alone, as its prompts come with a cache, and warns. Tokens that followed may be dropped by `crop` or hidden by the
    attention mask [B, m] of a later pass, those of the prompt not any more.

    Args:
        model: a causal language model that is loaded, or the bare model inside: Gemma 3, GPT-2, GPT-NeoX, Llama,
            Mistral, OLMo 2, Phi-3, Qwen2, Qwen3 or SmolLM3.
        k_by_layer: {layer: k}, from layer 1 on; layer 0 always reads the whole prompt, as its cache counts the tokens.
            `TopKPooling` explains k.
        options: one record of options for the poolings of all layers, taken as it is: `protected` is empty unless the
            record says otherwise.
        keep_last: >= 1 tokens at the end of the prompt that are kept whole.
        by_name: the options by name, instead; `shtopk.PoolingOptions` explains them. By default `protected` is (0,):
            the first token is always kept.

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
    check_head(model)
    install(model, k_by_layer, options, keep_last=keep_last, **by_name)
    own_configurations(model)
    describe(model)
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
    forget(model, stack.prompt_pooling)
    del stack.prompt_pooling
    let_adapters_forget(model)
    return model
