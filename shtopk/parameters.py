"""The parameters of a model in groups for an optimizer: scorers learn at a rate of their own."""

from __future__ import annotations

from typing import Any

from torch import nn

from shtopk.pooling import poolings


def parameter_groups(model: nn.Module, lr: float, scorer_lr: float = 1e-2) -> list[dict[str, Any]]:
    """Divide what a model learns into its scorers and all else, for any optimizer of torch.

    A scorer is one new vector beside layers that mostly are pretrained: it needs a far larger learning rate than they
    do, and no weight decay. Parameters that are frozen are left out, and so is a group without any.

    Args:
        model: a module with a `TopKPooling` inside, such as a model that `pool_encoder` or `pool_decoder` was called
            on.
        lr: the learning rate of all that is no scorer, > 0.
        scorer_lr: that of the scorers, > 0. The default is what `shtopk train` takes.

    Returns:
        Two groups, each with "params" and "lr", the scorers' last and with a "weight_decay" of 0.

    Raises:
        ValueError: a model without a `TopKPooling`, or a learning rate that is not > 0.

    Example:
        >>> import torch
        >>> from shtopk import TopKPooling, parameter_groups
        >>> model = torch.nn.ModuleList([torch.nn.Linear(8, 8), TopKPooling(hidden_size=8, k=2)])
        >>> optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-4), weight_decay=0.01)
        >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        [(0.0001, 0.01), (0.01, 0.0)]
    """
    if not (found := poolings(model)):
        raise ValueError(f"expected a model with a TopKPooling, got {type(model).__name__} without one")
    if wrong := [rate for rate in (lr, scorer_lr) if not rate > 0]:
        raise ValueError(f"expected learning rates > 0, got {wrong[0]}")
    known = {parameter for pooling in found for parameter in pooling.parameters()}
    others: dict[str, Any] = {"params": [], "lr": lr}
    scorers: dict[str, Any] = {"params": [], "lr": scorer_lr, "weight_decay": 0.0}
    for parameter in model.parameters():
        if parameter.requires_grad:
            (scorers if parameter in known else others)["params"].append(parameter)
    return [group for group in (others, scorers) if group["params"]]
