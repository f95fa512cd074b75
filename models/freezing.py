"""Stop training the lower part of an encoder."""

from typing import Any

from torch import nn


def freeze_layers(encoder: Any, count: int) -> None:
    """Stop training the embeddings and the lowest `count` layers of an encoder; the others stay as they are.

    Raises:
        ValueError: the layers are not found, or are fewer than count.
    """
    layers = [
        m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == encoder.config.num_hidden_layers
    ]
    if not layers or count > len(layers[0]):
        raise ValueError(
            f"cannot freeze {count} layers of {type(encoder).__name__}: found {len(layers[0]) if layers else 0}"
        )
    for part in (encoder.get_input_embeddings(), getattr(encoder, "embeddings", None), *layers[0][:count]):
        if part is not None:
            part.requires_grad_(False)
