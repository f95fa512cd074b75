"""Where the model code inside checkpoints of 0.1.0 looks for the answer of an operator."""

from shtopk.topk import TopK

__all__ = ["TopK"]
