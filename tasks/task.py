"""A task is one record: where its documents come from and how predictions are judged."""

from collections.abc import Callable
from dataclasses import dataclass

from datasets import DatasetDict

from tasks.arguments import DataArguments


@dataclass(frozen=True)
class Task:
    """A data set to train and evaluate on.

    Attributes:
        name: as on the command line.
        description: one line for a model card.
        licence: of the data, one line.
        check: raises ValueError for arguments that cannot work, without reading or downloading any data.
        load: arguments -> DatasetDict of "train", "validation" and "test" with the columns "text" (str) and "label"
            (ClassLabel). Raises ValueError for data that cannot be used.
        compute_metrics: (predicted labels, true labels) -> {"accuracy": ..., "f1": ...}.
    """

    name: str
    description: str
    licence: str
    check: Callable[[DataArguments], None]
    load: Callable[[DataArguments], DatasetDict]
    compute_metrics: Callable[[list[int], list[int]], dict[str, float]]
