"""Trainable token pooling: soft top-k at the price of hard top-k."""

from shtopk.baselines import hard_topk, iterative_topk
from shtopk.metrics import nccs, selection_entropy
from shtopk.pooling import PooledTokens, TopKPooling, anneal
from shtopk.selection import TopK
from shtopk.successive_halving import successive_halving_topk

__version__ = "0.1.0"
__all__ = [
    "PooledTokens",
    "TopK",
    "TopKPooling",
    "anneal",
    "hard_topk",
    "iterative_topk",
    "nccs",
    "selection_entropy",
    "successive_halving_topk",
]
