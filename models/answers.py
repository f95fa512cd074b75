"""The answer in a classifier's logits: a class, the labels that hold, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

CLASSES = "single_label_classification"
LABELS = "multi_label_classification"
NUMBERS = "regression"
HOLDS = 0.5  # the probability from which on one of several labels is part of the answer, unless a model has its own


def problem_type(config: Any) -> str:
    """What kind of answer a model with this configuration gives.

    It is `config.problem_type`. Where that is None, it is what transformers' losses assume: regression for one output,
    a single label for more. (They write multi-label into the configuration on the first labels that are no integers,
    so a model that was trained on such labels says it.)

    Returns:
        "single_label_classification": one class of `config.num_labels`; "multi_label_classification": each label holds
        or does not; "regression": a number for each output.

    Raises:
        ValueError: another problem_type.

    Example:
        >>> from transformers import BertConfig
        >>> problem_type(BertConfig(num_labels=3)), problem_type(BertConfig(num_labels=1))
        ('single_label_classification', 'regression')
    """
    given = config.problem_type
    if given is None:
        return NUMBERS if config.num_labels == 1 else CLASSES
    if given not in (CLASSES, LABELS, NUMBERS):
        raise ValueError(f"expected a problem_type of {CLASSES}, {LABELS} or {NUMBERS}, got {given!r}")
    return given


def probabilities(logits: Tensor, config: Any) -> Tensor:
    """Turn logits [*, C] into probabilities [*, C] in [0, 1], at least float32.

    With a single label they sum to 1 (softmax). With several labels each label has a probability of its own (sigmoid).

    Raises:
        ValueError: a model of regression, whose logits are its answers.

    Example:
        >>> from transformers import BertConfig
        >>> several = BertConfig(num_labels=2, problem_type="multi_label_classification")
        >>> probabilities(torch.tensor([4.0, 4.0]), several)
        tensor([0.9820, 0.9820])
        >>> probabilities(torch.tensor([4.0, 4.0]), BertConfig(num_labels=2))
        tensor([0.5000, 0.5000])
    """
    kind = problem_type(config)
    if kind == NUMBERS:
        raise ValueError("expected a model that classifies, got one of regression; its logits are the answer")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.softmax(-1) if kind == CLASSES else logits.sigmoid()


class Named(NamedTuple):
    """The name of a class, label or output, with its probability in [0, 1]; in regression, with its number."""

    name: str
    value: float


@dataclass(frozen=True)
class Answer:
    """A classifier's answer to one document. `str` makes it one line.

    Attributes:
        problem_type: the kind of answer, see `problem_type`.
        values: every class, label or output with its value, in the order of the logits.
        thresholds: {label: the probability in [0, 1] from which on it is part of the answer}; 0.5 for others.

    Example:
        >>> answer = Answer(LABELS, (Named("sport", 0.2), Named("money", 0.9), Named("law", 0.6)))
        >>> answer.prediction
        ['money', 'law']
        >>> str(answer)
        'money (90.0 %), law (60.0 %)'
    """

    problem_type: str
    values: tuple[Named, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ranked(self) -> list[Named]:
        """The values, largest first."""
        return sorted(self.values, key=lambda named: -named.value)

    @property
    def chosen(self) -> list[Named]:
        """The values that make up the answer.

        That is the likeliest class; or the labels that reach their thresholds, the likeliest first, perhaps none; or
        every output.
        """
        if self.problem_type == NUMBERS:
            return list(self.values)
        if self.problem_type == LABELS:
            return [named for named in self.ranked if named.value >= self.thresholds.get(named.name, HOLDS)]
        return self.ranked[:1]

    @property
    def prediction(self) -> str | list[str] | float | dict[str, float]:
        """The name of the class, the list of labels that hold, the number, or {name: number} of several outputs."""
        if self.problem_type == NUMBERS:
            return dict(self.values) if len(self.values) > 1 else self.values[0].value
        names = [named.name for named in self.chosen]
        return names if self.problem_type == LABELS else names[0]

    def __str__(self) -> str:
        if self.problem_type == NUMBERS:
            names = [f"{named.name} " for named in self.values] if len(self.values) > 1 else [""]
            return ", ".join(f"{name}{named.value:g}" for name, named in zip(names, self.values, strict=True))
        if self.chosen:
            return ", ".join(f"{name} ({100 * share:.1f} %)" for name, share in self.chosen)
        name, share = self.ranked[0]
        return f"none of the labels (highest: {name} {100 * share:.1f} %)"


def answers(logits: Tensor, config: Any) -> list[Answer]:
    """Read the answers to B documents from logits [B, C].

    `config.id2label` has the names; `config.label_thresholds`, if it is there, a threshold for each label.

    Example:
        >>> from transformers import BertConfig
        >>> config = BertConfig(id2label={0: "sport", 1: "money"})
        >>> [str(answer) for answer in answers(torch.tensor([[0.0, 2.0], [4.0, 0.0]]), config)]
        ['money (88.1 %)', 'sport (98.2 %)']
        >>> str(*answers(torch.tensor([[3.7]]), BertConfig(num_labels=1)))
        '3.7'
    """
    kind = problem_type(config)
    rows = (logits.float() if kind == NUMBERS else probabilities(logits, config)).tolist()
    names = [config.id2label[i] for i in range(logits.shape[-1])]
    thresholds = dict(zip(names, getattr(config, "label_thresholds", None) or [], strict=False))
    return [Answer(kind, tuple(map(Named, names, row)), thresholds) for row in rows]
