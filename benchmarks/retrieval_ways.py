"""Ways to make k vectors of the token vectors of a document: the rows of the tables of retrieval."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from rivals.attention import AttentionPooling
from rivals.clusters import AttentionGuidedClusters
from rivals.gates import DFTopK, LapSum
from rivals.linear_map import LinearMap
from rivals.perturbed import PerturbedTopK
from sentence_transformers.multi_vector_encoder.modules import (
    BaseTokenPooling,
    HierarchicalTokenPooling,
    LambdaTokenPooling,
)
from torch import Tensor, nn

from shtopk.integrations.sentence_transformers import TopKTokenPooling

ALL = 0  # k of the whole index


class ModulePooling(BaseTokenPooling):
    """A module from hidden states [B, n, d] and mask [B, n] to a `shtopk.TopK`, as sentence-transformers has them."""

    def __init__(self, pooling: nn.Module):
        super().__init__()
        self.pooling = pooling

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        if not self.applies_to(task):
            return features
        pooled = self.pooling(features["token_embeddings"], features["attention_mask"].bool())
        return features | {"token_embeddings": pooled.values, "attention_mask": pooled.mask}

    def pool_one(self, embedding: Tensor, **kwargs: Any) -> Tensor:
        pooled = self.pooling(embedding.unsqueeze(0), embedding.new_ones(1, len(embedding), dtype=torch.bool))
        return pooled.values[0][pooled.mask[0]]


@dataclass(frozen=True, eq=False)
class Way:
    """A row of the table: `TopKTokenPooling` or `module` with these options, or `pool`.

    Attributes:
        name: as the table shows it.
        options: arguments of `TopKTokenPooling`, or of `module`, that differ from its defaults.
        learning_rate: of the scorer, behind an encoder that is frozen; None: nothing learns there. It and the
            temperatures: the best mean MRR of the two tasks in retrieval-tuning.md.
        pool: token vectors [n, d] and k -> [k, d].
        module: d, k and options -> a module from hidden states [B, n, d] and mask [B, n] to a `shtopk.TopK`.
        k: vectors of a document where it is not the table's k; ALL: one for each token.
    """

    name: str
    options: dict = field(default_factory=dict)
    learning_rate: float | None = None
    pool: Callable[[Tensor, int], Tensor] | None = None
    module: Callable[..., nn.Module] | None = None
    k: int | None = None

    def build(self, size: int, k: int) -> BaseTokenPooling:
        if self.pool is not None:
            return LambdaTokenPooling(lambda embedding: self.pool(embedding, k))
        if self.module is not None:
            return ModulePooling(self.module(size, k, **self.options))
        return TopKTokenPooling(size, k, **self.options)

    @property
    def is_drawn(self) -> bool:
        """Whether a frozen encoder's index depends on the seed: something is trained, or weights stay as drawn."""
        weights = self.pool is None and self.module is None and self.options.get("scorer") not in ("first", "strided")
        return self.learning_rate is not None or weights


def ward(embedding: Tensor, k: int) -> Tensor:
    """sentence-transformers' pooling, with the factor that leaves k clusters of this document.

    What belongs together has no gradient, the means have one.
    """
    factor = max(1.0, len(embedding) / (k + 0.5))
    with torch.autocast(embedding.device.type, enabled=False):  # distances of bfloat16 cannot become numpy's
        units = F.normalize(embedding.float(), dim=-1)
        return HierarchicalTokenPooling(factor, num_protected_tokens=0).pool_one(units)


def chunks(embedding: Tensor, k: int) -> Tensor:
    """Means of k stretches of equal length."""
    return torch.stack([part.mean(0) for part in embedding.tensor_split(min(k, len(embedding)))])


BOTH = {"eval_operator": "successive_halving"}  # a tournament in eval mode, too
ANNEALED = BOTH | {"temperature": 1 / 16, "initial_temperature": 4.0}
ITERATIVE, FROM_4, FROM_1 = {"operator": "iterative"}, {"initial_temperature": 4.0}, {"initial_temperature": 1.0}
WAYS = [
    Way("all tokens", pool=lambda embedding, k: embedding, k=ALL),
    Way("successive halving", learning_rate=1e-2),
    Way("successive halving in both modes", BOTH, learning_rate=1e-2),
    Way("successive halving, annealed", ANNEALED | {"temperature": 0.5}, learning_rate=1e-2),
    Way("select and merge in both modes", {"operator": "select_and_merge"}, learning_rate=3e-2),
    Way("iterative top-k", ITERATIVE, learning_rate=3e-2),
    Way("DFTopK", FROM_4, module=DFTopK, learning_rate=3e-2),
    Way("LapSum", FROM_1, module=LapSum, learning_rate=3e-2),
    Way("perturbed top-k", {"initial_temperature": 16.0}, module=PerturbedTopK, learning_rate=3e-2),
    Way("attention-guided clusters", module=AttentionGuidedClusters, learning_rate=3e-2),
    Way("linear map over places", module=LinearMap, learning_rate=3e-2),
    Way("softmax attention, k queries", module=AttentionPooling, learning_rate=3e-2),
    Way("random scorer, frozen", {"operator": "hard"}),
    Way("first k tokens", {"operator": "hard", "scorer": "first"}),
    Way("means of k stretches", pool=chunks),
    Way("Ward clusters", pool=ward),
    Way("mean of all tokens", pool=chunks, k=1),
]
RATES = 1e-2, 3e-2
SOFT = [FROM_4, FROM_1, {"temperature": 0.25}]
GRID: dict[str, tuple[Callable[..., nn.Module] | None, list[dict]]] = {  # row -> its module, and what to choose from
    "successive halving": (None, [{}]),
    "successive halving in both modes": (None, [BOTH, BOTH | {"temperature": 4.0}]),
    "successive halving, annealed": (None, [ANNEALED, ANNEALED | {"temperature": 0.5}]),
    "select and merge in both modes": (None, [{"operator": "select_and_merge"}]),
    "iterative top-k": (None, [ITERATIVE, ITERATIVE | FROM_4 | {"temperature": 0.1}]),
    "DFTopK": (DFTopK, SOFT),
    "LapSum": (LapSum, SOFT),
    "perturbed top-k": (PerturbedTopK, [FROM_4, FROM_1, {"initial_temperature": 16.0}]),
    "attention-guided clusters": (AttentionGuidedClusters, [{}]),
    "linear map over places": (LinearMap, [{}]),
    "softmax attention, k queries": (AttentionPooling, [{}]),
}


def candidates(row: str) -> list[Way]:
    """The settings of a row of WAYS that `--tune` compares, each with a name of its own."""
    module, grid = GRID[row]
    return [
        Way(f"{row}{in_words(options)}, {rate:g}", options, rate, module=module) for options in grid for rate in RATES
    ]


def in_words(options: dict) -> str:
    """
    >>> in_words({"initial_temperature": 4.0, "temperature": 0.1})
    ', from 4, T = 0.1'
    """
    words = {"initial_temperature": ", from ", "temperature": ", T = "}
    return "".join(f"{word}{options[name]:g}" for name, word in words.items() if name in options)
