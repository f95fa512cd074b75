"""The queries, keys and values of a layer of Llama, for the ways to choose that look at them."""

from typing import Any

from torch import Tensor, nn
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import rotate_half


class LlamaHeads:
    """The heads of a layer of a Llama, from what comes into the layer; the model's modules are used, not copied.

    Time O(n d²) for queries, keys and values each.

    Args:
        model: with a LlamaModel inside.
        layer: its number.

    Raises:
        ValueError: another model, as elsewhere queries and keys are made in other ways.
    """

    def __init__(self, model: nn.Module, layer: int):
        stack = next((module for module in model.modules() if isinstance(module, LlamaModel)), None)
        if stack is None:
            raise ValueError(f"expected a Llama to look at the queries and keys of, got {type(model).__name__}")
        self.layer: Any = stack.layers[layer]
        self.rotary = stack.rotary_emb

    def queries(self, vectors: Tensor) -> Tensor:
        """[B, h, n, e]."""
        return self._split(self.layer.self_attn.q_proj(self.layer.input_layernorm(vectors)))

    def keys(self, vectors: Tensor) -> Tensor:
        """[B, g, n, e], of g heads of keys."""
        return self._split(self.layer.self_attn.k_proj(self.layer.input_layernorm(vectors)))

    def values(self, vectors: Tensor) -> Tensor:
        """[B, g, n, e]."""
        return self._split(self.layer.self_attn.v_proj(self.layer.input_layernorm(vectors)))

    def for_queries(self, keys: Tensor) -> Tensor:
        """Keys or values [B, g, ...] as [B, h, ...]: each query's own."""
        return keys.repeat_interleave(self.layer.self_attn.num_key_value_groups, 1)

    def turned(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Queries or keys [B, h, n, e] turned by their positions [B, n]."""
        cos, sin = self.turns(vectors, positions)
        return turn(vectors, cos.unsqueeze(1), sin.unsqueeze(1))

    def turns(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [B, n, e] of positions [B, n]."""
        return self.rotary(like, positions)

    def _split(self, projected: Tensor) -> Tensor:
        batch, n, _ = projected.shape
        return projected.view(batch, n, -1, self.layer.self_attn.head_dim).transpose(1, 2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors [..., e] turned by angles, or by a mean over angles."""
    return x * cos + rotate_half(x) * sin
