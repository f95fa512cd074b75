"""Other ways to get from n token vectors to k, after their papers, with masks.

Each is a module `Rival(hidden_size, k, **options)` whose `forward(hidden_states [B, n, d], mask [B, n] bool)` returns
a `shtopk.TopK`. A slot that no real token reached is empty: zero, and masked out. Padding changes no row's result.
What each computes, what it costs, and where it departs from its paper stands in its docstring; the costs leave out the
O(n d) of reading the vectors once, which all have. `prompts` has ways to choose what is kept of a prompt.
"""

from torch import nn

from rivals.attention import AttentionPooling
from rivals.bipartite import BipartiteMerging
from rivals.clusters import AttentionGuidedClusters, WardClusters
from rivals.gates import DFTopK, LapSum
from rivals.linear_map import LinearMap
from rivals.perturbed import PerturbedTopK
from rivals.stretches import Stretches

RIVALS: dict[str, type[nn.Module]] = {
    "dftopk": DFTopK,
    "lapsum": LapSum,
    "perturbed": PerturbedTopK,
    "attention": AttentionPooling,
    "agc": AttentionGuidedClusters,
    "ward": WardClusters,
    "bipartite": BipartiteMerging,
    "linear_map": LinearMap,
    "stretches": Stretches,
}
"""The rivals by the names that the rows of variants.py have in `kind`."""
