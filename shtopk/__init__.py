"""Trainable token pooling: a model learns which k of a text's n token vectors to keep."""

from shtopk.assignment import Assignment
from shtopk.budget import draw_k
from shtopk.metrics import nccs
from shtopk.operators import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk
from shtopk.options import PoolingOptions
from shtopk.parameters import parameter_groups
from shtopk.pooling import TopKPooling, anneal
from shtopk.topk import TopK

__version__ = "0.2.0"
__all__ = [
    "Assignment",
    "PoolingOptions",
    "TopK",
    "TopKPooling",
    "anneal",
    "draw_k",
    "hard_topk",
    "iterative_topk",
    "nccs",
    "parameter_groups",
    "select_and_merge_topk",
    "successive_halving_topk",
]
