"""The encoders that can be pooled between their layers: where the layers are, and what they get for every token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

# A model may be spread over several devices, and its arguments lie where they were made.
Gather = Callable[[Any, Tensor, nn.Module], Any]  # (argument, positions [B, k], layer) -> argument for k vectors


def of_tokens(x: Any, positions: Tensor, layer: nn.Module) -> Any:
    """Gather tokens in dimension 1: x [B or 1, n, ...] becomes [B, k, ...]; of a tuple (cosine, sine), each part."""
    if isinstance(x, tuple):
        return tuple(of_tokens(part, positions, layer) for part in x)
    positions = positions.to(x.device)
    index = positions.view(*positions.shape, *[1] * (x.dim() - 2)).expand(*positions.shape, *x.shape[2:])
    return x.expand(positions.shape[0], *x.shape[1:]).gather(1, index)


def of_pairs(x: Tensor, positions: Tensor, layer: nn.Module) -> Tensor:
    """Gather pairs of tokens in the last two dimensions: x [B or 1, h, n or 1, n] becomes [B, h, k or 1, k]."""
    x, positions = x.expand(positions.shape[0], *x.shape[1:]), positions.to(x.device)
    if x.shape[2] > 1:
        x = x.gather(2, positions[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
    return x.gather(3, positions[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))


def of_mask(x: Tensor, positions: Tensor, layer: nn.Module) -> Tensor:
    """Gather an attention mask, of tokens [B, n] or of pairs of tokens."""
    return of_tokens(x, positions, layer) if x.dim() == 2 else of_pairs(x, positions, layer)


def of_distances(x: Tensor, positions: Tensor, layer: Any) -> Tensor:
    """Gather DeBERTa's distances: [1, n, n] becomes [1, B * heads, k, k], as the layer takes them per head, not per
    document.
    """
    pairs = of_pairs(x.unsqueeze(1), positions, layer)  # [B, 1, k, k]
    heads = layer.attention.self.num_attention_heads
    return pairs.expand(-1, heads, -1, -1).flatten(0, 1).unsqueeze(0)


@dataclass(frozen=True)
class Family:
    """One kind of encoders.

    Attributes:
        stack: class name of the module that runs the layers.
        layers: attribute of the stack that holds the layers.
        gathers: {argument of a layer with entries for all tokens: the function that gathers them}.
        handed_on: an argument that each layer returns for the next one (T5's position bias), so it is gathered
            already.
        ignored: arguments without entries for tokens, which may be as long as the document by chance.
        additive: True: float masks are added (0 keeps, -inf drops). False: they are multiplied (1 keeps).
        protected: positions that are always kept, see `TopKPooling`. Heads read [CLS]; many attention heads look at
            [SEP] when they have nothing to do (Clark et al. 2019, "What Does BERT Look At?", section 3.2).
        first: the lowest layer whose input can be pooled.
        why: the reason why no lower one can.
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
