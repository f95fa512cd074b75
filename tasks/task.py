"""The record that describes a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasets import DatasetDict

from tasks.arguments import FILE_FIELDS, HUB_FIELDS, DataArguments
from tasks.metrics import classification_metrics
from tasks.split import shuffled

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """A corpus with what is needed to train on it and to score it.

    Attributes:
        name: what `--task` calls it.
        description: one sentence, for the model card.
        licence: whose the texts are and what they may be used for.
        read: arguments -> DatasetDict of train, validation and test, with the columns "text" (str) and "label"
            (ClassLabel), perhaps others. Raises ValueError, in one line, for data it cannot use.
        fields: the fields of `DataArguments` that belong to this task alone.
        check_source: raises ValueError, in one line, where the data is not there; reads none of it.
        metrics: the keys that `compute_metrics` returns.
        compute_metrics: (predictions, references) -> their values; both are lists of class numbers.
    """

    name: str
    description: str
    licence: str
    read: Callable[[DataArguments], DatasetDict]
    check_source: Callable[[DataArguments], None]
    fields: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy", "f1")
    compute_metrics: Callable[[Sequence[int], Sequence[int]], dict[str, float]] = classification_metrics

    def check(self, arguments: DataArguments) -> None:
        """Raise ValueError for what can be seen to be wrong before any data is read."""
        for name in (*FILE_FIELDS, *HUB_FIELDS):
            if getattr(arguments, name) and name not in self.fields:
                owner = "files" if name in FILE_FIELDS else "hub"
                raise ValueError(f"{name} belongs to the task {owner}, but task is {self.name}; leave one of them out")
        for name in ("max_train_samples", "max_eval_samples"):
            if (limit := getattr(arguments, name)) is not None and limit < 1:
                raise ValueError(f"expected {name} >= 1, got {limit}")
        self.check_source(arguments)

    def load(self, arguments: DataArguments) -> DatasetDict:
        """Check, read, and cut the splits to `max_train_samples` and `max_eval_samples` documents, drawn evenly."""
        self.check(arguments)
        data = self.read(arguments)
        limits = (arguments.max_train_samples, arguments.max_eval_samples, arguments.max_eval_samples)
        for name, limit in zip(SPLITS, limits, strict=True):
            if limit is not None and limit < len(data[name]):
                data[name] = data[name].select(sorted(shuffled(data[name]["text"], arguments.data_seed)[:limit]))
        return data
