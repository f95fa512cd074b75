"""The encoders that can be pooled between their layers: where the layers are, and what these get of every token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Gather = Callable[[Any, Tensor, nn.Module], Any]  # of an argument, positions [B, k], and the layer that gets it


def of_tokens(x: Any, positions: Tensor, layer: nn.Module) -> Any:
    """What stands for tokens in dimension 1: x [B or 1, n, ...] -> [B, k, ...]; of a tuple (cosine, sine), each."""
    if isinstance(x, tuple):
        return tuple(of_tokens(part, positions, layer) for part in x)
    index = positions.view(*positions.shape, *[1] * (x.dim() - 2)).expand(*positions.shape, *x.shape[2:])
    return x.expand(len(positions), *x.shape[1:]).gather(1, index)


def of_pairs(x: Tensor, positions: Tensor, layer: nn.Module) -> Tensor:
    """What stands for pairs of tokens in the last two dimensions: [B or 1, h, n or 1, n] -> [B, h, k or 1, k]."""
    x = x.expand(len(positions), *x.shape[1:])
    if x.shape[2] > 1:
        x = x.gather(2, positions[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
    return x.gather(3, positions[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))


def of_mask(x: Tensor, positions: Tensor, layer: nn.Module) -> Tensor:
    """An attention mask, of tokens [B, n] or of pairs."""
    return of_tokens(x, positions, layer) if x.dim() == 2 else of_pairs(x, positions, layer)


def of_distances(x: Tensor, positions: Tensor, layer: Any) -> Tensor:
    """DeBERTa's distances of pairs [1, n, n] -> [1, B * heads, k, k]: it can tell heads apart, but not documents."""
    pairs = of_pairs(x.unsqueeze(1), positions, layer)  # [B, 1, k, k]
    heads = layer.attention.self.num_attention_heads
    return pairs.expand(-1, heads, -1, -1).flatten(0, 1).unsqueeze(0)


@dataclass(frozen=True)
class Family:
    """Encoders of one kind.

    Attributes:
        stack: class name of the module that runs the layers.
        layers: its attribute that holds them.
        gathers: how the arguments that concern every token follow the tokens, by name.
        handed_on: one of them that a layer returns, for the next one, so that it has been gathered there.
        ignored: arguments that concern no token, though they may be as long.
        additive: whether a mask of reals is added to attention scores, 0 where they count; else it is 1 there.
        protected: places that always stay, see `TopKPooling`: [CLS], which heads read, and [SEP], which many attention
            heads look at when there is nothing to see (Clark et al. 2019, "What Does BERT Look At?", section 3.2).
        first: the first layer whose input can be pooled.
        why: why not an earlier one.
    """

    stack: str
    layers: str
    gathers: Mapping[str, Gather]
    handed_on: str | None = None
    ignored: tuple[str, ...] = ()
    additive: bool = True
    protected: tuple[int, ...] = (0, -1)
    first: int = 0
    why: str = ""


MASK: dict[str, Gather] = {"attention_mask": of_mask, "position_ids": of_tokens}
ROTARY: dict[str, Gather] = {**MASK, "position_embeddings": of_tokens}
BIAS: dict[str, Gather] = {**MASK, "position_bias": of_pairs}
DISTANCES: dict[str, Gather] = {**MASK, "relative_pos": of_distances}

FAMILIES: dict[str, Family] = {  # by the model type of a configuration
    "bart": Family("BartEncoder", "layers", MASK, protected=()),
    "bert": Family("BertEncoder", "layer", MASK),
    "deberta-v2": Family("DebertaV2Encoder", "layer", DISTANCES, ignored=("rel_embeddings",), additive=False, first=1,
                         why="a convolution reads the input and the output of layer 0"),
    "distilbert": Family("Transformer", "layer", MASK),
    "electra": Family("ElectraEncoder", "layer", MASK),
    "eurobert": Family("EuroBertModel", "layers", ROTARY, protected=(0,)),
    "modernbert": Family("ModernBertModel", "layers", ROTARY),
    "mpnet": Family("MPNetEncoder", "layer", BIAS),
    "roberta": Family("RobertaEncoder", "layer", MASK),
    "t5": Family("T5Stack", "block", BIAS, handed_on="position_bias", protected=(), first=1,
                 why="layer 0 makes the position bias of all layers"),
    "vit": Family("ViTModel", "layers", MASK, protected=(0,)),
    "xlm-roberta": Family("XLMRobertaEncoder", "layer", MASK),
}  # fmt: skip
