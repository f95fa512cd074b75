"""What training minimises where it is not the model's own loss: class weights, smoothed labels, numbers of any scale.

Each of these is the mean over the documents of a batch, so that an update learns the same however its documents are
divided among micro-batches and processes. A classifier gets one as its `loss_function`, as transformers calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shtopk.training.class_weights import BALANCED


@dataclass(frozen=True)
class ClassLoss:
    """Cross-entropy of classes: a document counts as much as its class weighs.

    Attributes:
        weights: [C] of the classes; None: all 1.
        smoothing: share of the target, in [0, 1), that is spread evenly over all classes.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, labels: Tensor, pooled_logits: Tensor, config: Any, **_: Any) -> Tensor:
        each = functional.cross_entropy(
            pooled_logits.float(), labels.view(-1), reduction="none", label_smoothing=self.smoothing
        )
        return (each if self.weights is None else each * self.weights.to(each.device)[labels.view(-1)]).mean()


@dataclass(frozen=True)
class LabelLoss:
    """Binary cross-entropy of labels: where a label is true, it counts as much as it weighs.

    Attributes:
        weights: [L] of the labels; None: all 1.
        smoothing: in [0, 1); a target of 1 becomes 1 - smoothing / 2, one of 0 smoothing / 2.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, labels: Tensor, pooled_logits: Tensor, config: Any, **_: Any) -> Tensor:
        targets = labels.float() * (1 - self.smoothing) + self.smoothing / 2
        each = functional.binary_cross_entropy_with_logits(pooled_logits.float(), targets, reduction="none")
        if self.weights is not None:  # not as pos_weight, which would weigh what smoothing adds to a target of 0
            each = each * torch.where(labels > 0, self.weights.to(each.device), 1)
        return each.mean()


@dataclass(frozen=True)
class NumberLoss:
    """Mean squared error in units of the variance of the training documents' numbers: their mean has a loss of 1."""

    std: float

    def __call__(self, labels: Tensor, pooled_logits: Tensor, config: Any, **_: Any) -> Tensor:
        return functional.mse_loss(pooled_logits.float().view(-1) / self.std, labels.float().view(-1) / self.std)


def smoothed(loss: Tensor, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The cross-entropy of tokens with a share of the target spread evenly over the vocabulary.

    Args:
        loss: the cross-entropy without that, the mean over the tokens that count.
        logits: [*, T, V].
        labels: [*, T], -100 for tokens that do not count.
        smoothing: the share, in [0, 1).
    """
    logits = logits.float()
    spread = logits.logsumexp(-1) - logits.mean(-1)  # [*, T]
    counts = labels != -100
    return (1 - smoothing) * loss + smoothing * (spread * counts).sum() / counts.sum().clamp(min=1)


def class_weights(
    given: str | Mapping[str, float], names: Sequence[str], counts: Sequence[int], documents: int
) -> list[float]:
    """The weight of each class, scaled so that the mean over the training documents is 1.

    Args:
        given: "balanced", weights such that all classes together count the same; or {class: weight > 0}, 1 for
            classes that are not named.
        names: of the classes, by their numbers.
        counts: training documents of each class.
        documents: their number in all.

    Raises:
        ValueError: a weight for a class that there is not.

    Example:
        >>> class_weights("balanced", ["spam", "ham"], [1, 3], 4)
        [2.0, 0.6666666666666666]
        >>> class_weights({"spam": 3.0}, ["spam", "ham"], [1, 3], 4)
        [2.0, 0.6666666666666666]
    """
    weights = [1 / max(count, 1) for count in counts] if given == BALANCED else _named(given, names)
    total = sum(weight * count for weight, count in zip(weights, counts, strict=True))
    return [weight * documents / total for weight in weights]


def label_weights(
    given: str | Mapping[str, float], names: Sequence[str], counts: Sequence[int], documents: int
) -> list[float]:
    """How much each of several labels counts where it is true; where it is not, it counts 1.

    Args:
        given: "balanced", (documents without the label) / (documents with it); or {label: weight > 0}, 1 for labels
            that are not named.
        names: of the labels, by their numbers.
        counts: training documents with each label.
        documents: their number in all.

    Raises:
        ValueError: a weight for a label that there is not.

    Example:
        >>> label_weights("balanced", ["rare", "often"], [1, 2], 4)
        [3.0, 1.0]
    """
    if given == BALANCED:
        return [max(documents - count, 1) / max(count, 1) for count in counts]
    return _named(given, names)


def _named(given: Any, names: Sequence[str]) -> list[float]:
    if unknown := sorted(set(given) - set(names)):
        known = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise ValueError(f"expected class_weights of labels that training has ({known}), got {unknown[0]!r}")
    return [float(given.get(name, 1.0)) for name in names]


def as_tensor(weights: Sequence[float] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights)
