"""A measure of how close pooled vectors come to the true top k."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shtopk.slots import product


def nccs(true_topk: Tensor, pooled: Tensor) -> Tensor:
    """Normalized Chamfer cosine similarity: the cosine of each true vector to the nearest pooled one, on average.

    It measures how close a soft choice comes to the hard one. It does not measure how well the choice teaches a
    scorer: hard top-k has 1 by construction.

    Args:
        true_topk: [*, k, d] the vectors that hard top-k keeps, in any order.
        pooled: [*, m, d] the vectors to compare with them, in any order.

    Returns:
        Tensor: [*] in [-1, 1]; 1 where every true vector has a pooled one of the same direction.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> nccs(torch.eye(3)[:2], torch.eye(3)[1:])
        tensor(0.5000)

    Source: Pietruszka, Borchmann, Graliński 2020, "Successive Halving Top-k Operator", section Evaluation.
    """
    if true_topk.shape[:-2] != pooled.shape[:-2] or true_topk.shape[-1:] != pooled.shape[-1:] or pooled.dim() < 2:
        raise ValueError(
            f"expected true_topk [*, k, d] and pooled [*, m, d], got {list(true_topk.shape)} and {list(pooled.shape)}"
        )
    dtype = torch.promote_types(true_topk.dtype, torch.float32)  # in a narrower one no length is as small as eps
    true_topk, pooled = (F.normalize(x.to(dtype), dim=-1) for x in (true_topk, pooled))
    cosines = product(true_topk, pooled.transpose(-1, -2))  # [*, k, m]
    return cosines.amax(-1).mean(-1)
