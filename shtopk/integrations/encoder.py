"""Pool the tokens between the layers of a Hugging Face encoder, so that the layers above get cheaper, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from transformers import PreTrainedModel

from shtopk.integrations.adapters import let_adapters_forget, let_adapters_train
from shtopk.integrations.layers.description import describe, forget, own_configurations
from shtopk.integrations.layers.installation import check_head, install, pooled_stack
from shtopk.integrations.saved import load_pooled
from shtopk.options import PoolingOptions

__all__ = ["install", "load_pooled", "pool_encoder", "unpool_encoder"]  # install for the model code in checkpoints
Model = TypeVar("Model", bound=PreTrainedModel)


def pool_encoder(
    model: Model, k_by_layer: Mapping[int | str, int | float], options: PoolingOptions | None = None, **by_name: Any
) -> Model:
    """Let an encoder pool its tokens between its layers. The model is changed in place.

    With {2: 64} a new `TopKPooling` pools the input of layer 2 (counted from 0) to 64 vectors. That layer and all
    layers above work on these 64. {2: 256, 4: 64} pools twice. The poolings learn with the model. Masks, rotary
    positions and position biases follow the tokens. All this is done by hooks, so the model's code stays as it is;
    `unpool_encoder` removes them.

    The model's output says what was kept, by two attributes that are not among its keys. `pooled_attention_mask`
    [B, k] bool is needed to average or search `last_hidden_state` [B, k, d]; `assignment` is the `Assignment` of all
    tokens to the k vectors. (`DistributedDataParallel` and `DataParallel` drop both, as they rebuild the output.)
    Hidden states above a pooling have k vectors.

    A decoder sees the k vectors under their mask, in `generate` too. For that, pass the whole encoder-decoder.

    `save_pretrained` saves the poolings and their description with the model, and `load_pooled` loads both.
    `from_pretrained` of the model's class would leave the poolings out.

    Args:
        model: an encoder that is loaded, alone or with a head or a decoder, of a type in `layers.families.FAMILIES`.
        k_by_layer: {layer: k}, in any order; `TopKPooling` explains k. Fewer than k tokens stay as many as they are.
        options: one record of options for the poolings of all layers, taken as it is: `protected` is empty unless the
            record says otherwise.
        by_name: the options by name, instead; `shtopk.PoolingOptions` explains them. By default `protected` is (0, -1)
            if the family has [CLS] and [SEP]; and where a decoder reads the slots, they are pooled in eval mode as in
            training. Slots always stand in document order.

    Returns:
        The model.

    Raises:
        ValueError: a model that cannot be pooled, a head that needs every token, or an impossible k_by_layer.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> bert = BertModel(BertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64)).eval()
        >>> out = pool_encoder(bert, {2: 8})(input_ids=torch.arange(100, 130).unsqueeze(0))
        >>> out.last_hidden_state.shape, out.assignment.positions.shape
        (torch.Size([1, 8, 32]), torch.Size([1, 8]))
    """
    if pooled_stack(model) is not None:
        raise ValueError(f"this {type(model).__name__} is pooled already; call unpool_encoder first")
    check_head(model)
    install(model, k_by_layer, options, **by_name)
    own_configurations(model)
    describe(model)
    let_adapters_train(model)
    return model


def unpool_encoder(model: Model) -> Model:
    """Undo `pool_encoder`: remove the poolings from a model, in place. It then computes what it did before.

    Args:
        model: one that `pool_encoder` was called on.

    Returns:
        The model.

    Raises:
        ValueError: a model that is not pooled.
    """
    stack = pooled_stack(model)
    if stack is None:
        raise ValueError(f"expected a model that pool_encoder was called on, got an unpooled {type(model).__name__}")
    for handle in stack.pooling.handles:
        handle.remove()
    forget(model, stack.pooling)
    del stack.pooling
    let_adapters_forget(model)
    return model
