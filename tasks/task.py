"""The record that describes a task, of one of two kinds: classification or summarization."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shtopk.tasks.arguments import OWNERS, DataArguments
from shtopk.tasks.baselines import BASELINES, nearest_neighbour
from shtopk.tasks.names import ROUGE, SUMMARIZATION_METRICS
from shtopk.tasks.preprocess import encode_documents, encode_summaries
from shtopk.tasks.split import SPLITS, shuffled

if TYPE_CHECKING:  # late, as the metrics: it takes long to import
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class Task(ABC):
    """A corpus with what is needed to train on it and to score it.

    Attributes:
        read: arguments -> DatasetDict of train, validation and test, with the columns "text" (str) and `target`,
            perhaps others. Raises ValueError, in one line, for data it cannot use.
        check_source: raises ValueError, in one line, where the data is missing; reads none of it.
        read_alone: arguments, split -> texts and answers (names of classes, or summaries) of a split that lies by
            itself, None if it does not. Raises ValueError, as `read`.
    """

    name: str  # what `--task` calls it
    description: str  # one sentence, for the model card
    licence: str  # whose the texts are and what they may be used for
    read: Callable[[DataArguments], DatasetDict]
    check_source: Callable[[DataArguments], object]
    read_alone: Callable[[DataArguments, str], tuple[list[str], list[str]] | None] | None = None
    fields: tuple[str, ...] = ()  # of `DataArguments` that belong to this task alone
    target: ClassVar[str]  # the column that a model predicts
    metrics: ClassVar[tuple[str, ...]]  # the keys that `compute_metrics` returns
    selectors: ClassVar[tuple[str, ...]]  # those that may pick the best checkpoint (higher is better); the first does
    shown: ClassVar[tuple[str, ...]]  # those that `in_short` shows

    def check(self, arguments: DataArguments) -> None:
        """Raise ValueError for arguments that cannot work; reads no data."""
        self.check_fields(arguments)
        self.check_source(arguments)

    def check_fields(self, arguments: DataArguments) -> None:
        """The same, but for where the data lies."""
        for name, owner in OWNERS.items():
            if getattr(arguments, name) and name not in self.fields:
                raise ValueError(f"{name} belongs to the task {owner}, but task is {self.name}; leave one of them out")
        for name in ("max_train_samples", "max_eval_samples", "max_tokens", "max_summary_tokens"):
            if (limit := getattr(arguments, name)) is not None and limit < 1:
                raise ValueError(f"expected {name} >= 1, got {limit}")

    def in_short(self, results: dict, split: str = "") -> str:
        """One line with the metrics in `shown`; the keys of results start with the split, if one is given."""
        before = f"{split}_" if split else ""
        return ", ".join(f"{name} {results[before + name]:.3f}" for name in self.shown)

    def load(self, arguments: DataArguments) -> DatasetDict:
        """Check, read, and cut the splits to `max_train_samples` and `max_eval_samples` documents, drawn at random."""
        self.check(arguments)
        data = self.read(arguments)
        limits = (arguments.max_train_samples, arguments.max_eval_samples, arguments.max_eval_samples)
        for name, limit in zip(SPLITS, limits, strict=True):
            if limit is not None and limit < len(data[name]):
                data[name] = data[name].select(sorted(shuffled(data[name]["text"], arguments.data_seed)[:limit]))
        return data

    def load_split(self, arguments: DataArguments, split: str) -> tuple[list[str], list[str]]:
        """Texts and answers (names of classes, or summaries) of one split, for a model that was trained before.

        Of a file or a data set that has it, nothing else is read; where training drew it, it is drawn in the same
        way. At most `max_eval_samples`. Raises ValueError as `load` does, and for a split that there is not.
        """
        self.check_fields(arguments)
        # Of the training split others may have been drawn.
        alone = self.read_alone if split != "train" else None
        found = None if alone is None else alone(arguments, split)
        if found is None:
            if split not in SPLITS:
                raise ValueError(f"expected split to be one of {', '.join(SPLITS)}; got {split!r}")
            data = self.load(arguments)[split]
            answers = data[self.target][:]
            names = getattr(data.features[self.target], "names", None)
            found = data["text"][:], [names[i] for i in answers] if names else answers
        texts, answers = found
        limit = arguments.max_eval_samples
        if limit is not None and limit < len(texts):
            chosen = sorted(shuffled(texts, arguments.data_seed)[:limit])
            texts, answers = [texts[i] for i in chosen], [answers[i] for i in chosen]
        return texts, answers

    @abstractmethod
    def encode(self, tokenizer, texts: DatasetDict, arguments: DataArguments, start: int | None = None) -> DatasetDict:
        """The splits as token numbers, with "labels"; start: the token that a decoder, if any, starts from."""

    @abstractmethod
    def decode(self, tokenizer, answers: list) -> list:
        """A model's answers (logits of classes, or the tokens of summaries) in the form of the references."""

    def in_words(self, split: Dataset, answers: list) -> list[str]:
        """Predictions or references of a split as one reads them."""
        return answers

    @abstractmethod
    def compute_metrics(self, predictions: Sequence, references: Sequence) -> dict[str, float]:
        """The `metrics` of predictions."""

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list]:
        """Name -> answers to the test split that need no model; some need the training split."""
        return {}


@dataclass(frozen=True)
class Classification(Task):
    """Documents and their classes: "label" is a ClassLabel."""

    target = "label"
    metrics = ("accuracy", "f1")
    selectors = metrics
    shown = metrics

    def encode(self, tokenizer, texts: DatasetDict, arguments: DataArguments, start: int | None = None) -> DatasetDict:
        return encode_documents(tokenizer, texts, arguments.max_tokens).rename_column("label", "labels")

    def decode(self, tokenizer, answers: list[list[float]]) -> list[int]:
        return np.asarray(answers).argmax(-1).tolist()

    def in_words(self, split: Dataset, answers: list[int]) -> list[str]:
        return split.features[self.target].int2str(answers)

    def compute_metrics(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from shtopk.tasks.metrics import classification_metrics

        return classification_metrics(predictions, references)


@dataclass(frozen=True)
class Summarization(Task):
    """Documents and their summaries: "summary" is a text."""

    leads: dict[str, Callable[[str], str]] = field(default_factory=dict)  # name -> a summarizer that needs no model
    remembers: bool = False  # `baselines` has the nearest training document's summary as well (slow for long ones)
    target = "summary"
    metrics = SUMMARIZATION_METRICS
    selectors = ("rougeL", "rouge1", "rouge2", "rougeLsum")
    shown = (*ROUGE, "prediction_words", "prediction_repeats")

    def encode(self, tokenizer, texts: DatasetDict, arguments: DataArguments, start: int | None = None) -> DatasetDict:
        documents = encode_documents(tokenizer, texts, arguments.max_tokens)
        return encode_summaries(tokenizer, documents, arguments.max_summary_tokens, start)

    def decode(self, tokenizer, answers: list[list[int]]) -> list[str]:
        return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def compute_metrics(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        from shtopk.tasks.rouge import summarization_metrics

        return summarization_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[str]]:
        documents = texts["test"]["text"][:]
        found = {name: [lead(document) for document in documents] for name, lead in self.leads.items()}
        if self.remembers and "train" in texts:
            train: Dataset = texts["train"]
            found["nearest_neighbour"] = nearest_neighbour(train["text"][:], train["summary"][:], documents)
        return found


def of_any_rows(source: str, **record: Any) -> tuple[Classification, Summarization]:
    """The two records of a source of any documents: with their classes, and with their summaries."""
    classes = Classification(description=f"Documents and their classes from {source}", **record)
    return classes, Summarization(
        description=f"Documents and their summaries from {source}", leads=BASELINES, **record
    )
