"""The record that describes a task, and the kinds that have classes or summaries for answers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from shtopk.integrations.reading import WHOLE, Reading
from shtopk.tasks.arguments import OWNERS, DataArguments
from shtopk.tasks.baselines import nearest_neighbour
from shtopk.tasks.labels import named
from shtopk.tasks.names import ROUGE, SUMMARIZATION_METRICS, figure_as_text
from shtopk.tasks.preprocess import encode_documents, encode_summaries
from shtopk.tasks.split import SPLITS, evenly, shuffled
from shtopk.tasks.table import each, joined
from shtopk.tasks.word_baselines import class_baselines

if TYPE_CHECKING:  # late, as the metrics: it takes long to import
    from datasets import Dataset, DatasetDict


LIMITS = ("max_train_samples", "max_eval_samples", "max_tokens", "max_summary_tokens", "max_completion_tokens",
          "num_proc")  # fmt: skip


@dataclass(frozen=True)
class Task(ABC):
    """A corpus, with everything that is needed to train on it and to score answers.

    Attributes:
        name: what `--task` calls it.
        description: one sentence, for the model card.
        licence: whose the texts are, and what they may be used for.
        read: arguments -> DatasetDict of train, validation and test. The columns are "text" (str), `target` and
            perhaps others. Raises ValueError, in one line, for data that it cannot use.
        check_source: raises ValueError, in one line, if the data is missing. It reads none of it.
        read_alone: (arguments, split) -> the texts and answers (names of classes, or summaries) of a split that lies
            by itself, in the same columns; None if it does not. Raises ValueError as `read` does.
        fields: the fields of `DataArguments` that belong to this task alone.
        target: the column that a model predicts.
        metrics: the keys that `compute_metrics` returns.
        selectors: the metrics that may pick the best checkpoint; by default the first one does.
        lower_is_better: those of the metrics of which less is better.
        shown: the metrics that `in_short` shows.
    """

    name: str
    description: str
    licence: str
    read: Callable[[DataArguments], DatasetDict]
    check_source: Callable[[DataArguments], object]
    read_alone: Callable[[DataArguments, str], Dataset | None] | None = None
    fields: tuple[str, ...] = ()
    target: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    selectors: ClassVar[tuple[str, ...]]
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    shown: ClassVar[tuple[str, ...]]

    def check(self, arguments: DataArguments) -> None:
        """Check the arguments. No data is read.

        Raises:
            ValueError: in one line: they cannot work.
        """
        self.check_fields(arguments)
        self.check_source(arguments)

    def check_fields(self, arguments: DataArguments) -> None:
        """Check the arguments without looking whether the data is there."""
        for name, owner in OWNERS.items():
            if getattr(arguments, name) and name not in self.fields:
                raise ValueError(f"{name} belongs to the task {owner}, but task is {self.name}; leave one of them out")
        if arguments.needle_tokens != DataArguments.needle_tokens and self.name != "needle":
            raise ValueError(f"needle_tokens belongs to the task needle, but task is {self.name}; leave it out")
        for name in LIMITS:
            if (limit := getattr(arguments, name)) is not None and limit < 1:
                raise ValueError(f"expected {name} >= 1, got {limit}")
        self._check_answers(arguments)

    def _check_answers(self, arguments: DataArguments) -> None:
        given = arguments.problem_type or ("a label_separator" if arguments.label_separator else None)
        if arguments.completion_column:
            check_completions(arguments, given)
        if arguments.summary_column and given:
            raise ValueError(f"expected problem_type or summary_column, got {given} and {arguments.summary_column!r}; "
                             "leave one of them out")  # fmt: skip
        if arguments.label_separator and arguments.answer != "labels":
            raise ValueError(f"label_separator is for problem_type multi_label_classification, got {given}; "
                             "leave one of them out")  # fmt: skip
        if arguments.drop_unknown_labels and arguments.answer in OF_NO_CLASS:
            raise ValueError("drop_unknown_labels is for classes and labels, but the answers are "
                             f"{OF_NO_CLASS[arguments.answer]}; leave it out")  # fmt: skip

    def in_short(self, results: dict, split: str = "") -> str:
        """One line with the metrics in `shown`, as far as there are results for them.

        Args:
            results: {name: figure}.
            split: stands before each name in results, if given.
        """
        before = f"{split}_" if split else ""
        there = [name for name in self.shown if before + name in results]
        return ", ".join(f"{name} {figure_as_text(name, results[before + name])}" for name in there)

    def load(self, arguments: DataArguments) -> DatasetDict:
        """Check the arguments and read the data.

        The splits are cut to `max_train_samples` and `max_eval_samples` documents, drawn at random.

        Raises:
            ValueError: in one line: the arguments cannot work, or the data cannot be used.
        """
        self.check(arguments)
        data = self.read(arguments)
        tell(data)
        limits = (arguments.max_train_samples, arguments.max_eval_samples, arguments.max_eval_samples)
        for name, limit in zip(SPLITS, limits, strict=True):
            data[name] = sample(data[name], limit, arguments.data_seed)
        return data

    def load_split(self, arguments: DataArguments, split: str) -> Dataset:
        """One split, for a model that was trained before. Classes are given by their names.

        If the split lies by itself, nothing else is read; if training drew it, it is drawn in the same way. At most
        `max_eval_samples` documents are returned.

        Raises:
            ValueError: as `load`, and for a split that is not there.
        """
        self.check_fields(arguments)
        found = self.alone(arguments, split)
        if found is None:
            if split not in SPLITS:
                raise ValueError(f"expected split to be one of {', '.join(SPLITS)}; got {split!r}")
            found = named(self.load(arguments)[split], self.target)
        else:
            tell({split: found})
        return sample(found, arguments.max_eval_samples, arguments.data_seed)

    def alone(self, arguments: DataArguments, split: str) -> Dataset | None:
        """A split that lies by itself, all of it; None for one that training draws, or that others are drawn from."""
        return None if split == "train" or self.read_alone is None else self.read_alone(arguments, split)

    @abstractmethod
    def encode(
        self,
        tokenizer,
        texts: DatasetDict,
        arguments: DataArguments,
        start: int | None = None,
        how: Reading = WHOLE,
    ) -> DatasetDict:
        """The splits as token numbers, with "labels".

        Args:
            tokenizer: the model's.
            texts: the splits.
            arguments: how many tokens to read, in how many processes.
            start: the token that a decoder starts from; None without a decoder.
            how: the model reads documents.
        """

    @abstractmethod
    def decode(self, tokenizer, answers: np.ndarray | list, thresholds: Sequence[float] | None = None) -> list:
        """A model's answers in the form of the references.

        Args:
            tokenizer: the model's.
            answers: logits of classes, logits of labels, numbers, or tokens of summaries.
            thresholds: of labels, see `shtopk.tasks.thresholds`; None: 0.5 for each.
        """

    def in_words(self, split: Dataset, answers: list) -> list:
        """Predictions or references of a split as people read them: names of classes, numbers, or summaries."""
        return answers

    @abstractmethod
    def compute_metrics(self, predictions: Sequence, references: Sequence) -> dict[str, float]:
        """The `metrics` of predictions."""

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list]:
        """{name: answers to the test split} that need no model. Some of them need the training split."""
        return {}


@dataclass(frozen=True)
class Classification(Task):
    """Documents and their classes. The column "label" is a ClassLabel."""

    target = "label"
    metrics = ("accuracy", "f1")
    selectors = metrics
    shown = metrics

    def encode(self, tokenizer, texts, arguments, start=None, how=WHOLE):
        documents = encode_documents(tokenizer, texts, arguments.max_tokens, how, arguments.num_proc)
        return documents.rename_column("label", "labels")

    def decode(self, tokenizer, answers, thresholds=None) -> list[int]:
        return np.asarray(answers).argmax(-1).tolist()

    def in_words(self, split: Dataset, answers: list[int]) -> list[str]:
        return split.features[self.target].int2str(answers)

    def compute_metrics(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from shtopk.tasks.metrics import classification_metrics

        return classification_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[int]]:
        if "train" not in texts:
            return {}
        return class_baselines(texts["train"], joined(texts["test"]))


@dataclass(frozen=True)
class Summarization(Task):
    """Documents and their summaries. The column "summary" is text.

    Attributes:
        leads: {name: a summarizer that needs no model}.
        remembers: True: `baselines` has the summary of the nearest training document as well, which is slow for long
            ones.
    """

    leads: dict[str, Callable[[str], str]] = field(default_factory=dict)
    remembers: bool = False
    target = "summary"
    metrics = SUMMARIZATION_METRICS
    selectors = ("rougeL", "rouge1", "rouge2", "rougeLsum")
    shown = (*ROUGE, "prediction_words", "prediction_repeats")

    def encode(self, tokenizer, texts, arguments, start=None, how=WHOLE):
        documents = encode_documents(tokenizer, texts, arguments.max_tokens, how, arguments.num_proc)
        return encode_summaries(tokenizer, documents, arguments.max_summary_tokens, start, arguments.num_proc)

    def decode(self, tokenizer, answers, thresholds=None) -> list[str]:
        return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def compute_metrics(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        from shtopk.tasks.rouge import summarization_metrics

        return summarization_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[str]]:
        test = texts["test"]
        found = {name: [lead(text) for (text,) in each(test, "text")] for name, lead in self.leads.items()}
        if self.remembers and "train" in texts:
            train: Dataset = texts["train"]
            found["nearest_neighbour"] = nearest_neighbour(train["text"][:], train["summary"][:], test["text"][:])
        return found


OF_NO_CLASS = {"value": "numbers", "summary": "summaries", "completion": "completions"}


def check_completions(arguments: DataArguments, kind: str | None) -> None:
    """Raise ValueError for what does not go with a completion_column, such as another kind of answer."""
    others = {"summary_column": arguments.summary_column, "problem_type": kind,
              "text_pair_column": arguments.text_pair_column}  # fmt: skip
    others["text_column"] = None if arguments.text_column == DataArguments.text_column else arguments.text_column
    for name, value in others.items():
        if value:
            raise ValueError(f"expected {name} or completion_column, whose documents are prompt_column; got {value!r} "
                             f"and {arguments.completion_column!r}; leave one of them out")  # fmt: skip


def sample(split: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most so many documents of a split, drawn by their texts and the seed; None: all.

    Classes keep their shares.
    """
    if limit is None or limit >= len(split):
        return split
    order = shuffled(joined(split), seed)
    if "label" in split.column_names:  # its splits were drawn by the same order, class by class
        order = evenly(order, split["label"][:])
    return split.select(sorted(order[:limit]))


def tell(splits: Mapping[str, Dataset]) -> None:
    """Print, on the main process, what reading has changed, as `info.description` of the splits says."""
    if os.environ.get("RANK", "0") == "0":
        for line in dict.fromkeys(split.info.description for split in splits.values() if split.info.description):
            print(line)
