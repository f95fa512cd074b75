"""An experiment with a model that was trained before, on one split of any data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from shtopk.models import load_checkpoint
from shtopk.models.answers import CLASSES, LABELS, NUMBERS, problem_type
from shtopk.models.checkpoint import most_tokens
from shtopk.models.language_model import completes
from shtopk.tasks import DataArguments
from shtopk.tasks.arguments import COMPLETION
from shtopk.tasks.labels import as_classes
from shtopk.tasks.task import sample
from shtopk.training.arguments import Arguments, EvaluationArguments
from shtopk.training.console import refusing
from shtopk.training.drawn import check_drawn
from shtopk.training.experiment import Experiment

SUMMARY = "summary"  # the column of summaries, where none is named
DOES = {"summary": "summarizes", "completion": "completes prompts"}  # by what a model answers with; else it classifies
HAS = {"summary": "summaries", "completion": "completions"}  # likewise


class Trained(Experiment):
    """A checkpoint and a split. Input that cannot be used is refused in one line.

    Args:
        checkpoint: see `shtopk.models.load_checkpoint`.
        data: where the split lies, and how it is read.
        arguments: the split's name, batch size, precision and output folder.
        pooling: options of the pooling that are to differ from those in the checkpoint.
    """

    def __init__(self, checkpoint: str, data: DataArguments, arguments: EvaluationArguments, **pooling: Any):
        self.given = data
        with refusing(ValueError):
            self.model, self.tokenizer = load_checkpoint(checkpoint, **pooling)
            writes = self._writes()
            if writes is None:
                data = self._as_answered(data)
            elif data.answer not in DOES and data.task in ("files", "hub"):
                column: dict[str, Any] = (
                    {"summary_column": SUMMARY} if writes == "summary" else {"completion_column": COMPLETION}
                )
                data = replace(data, problem_type=None, **column)
            if data.max_tokens is None:
                data = replace(data, max_tokens=most_tokens(self.model))
            super().__init__(Arguments(data=data, training=arguments.training))
            self.checkpoint, self.split = Path(checkpoint), arguments.split
            target = self.task.target
            if writes != (target if target in DOES else None):
                does, has = DOES.get(str(writes), "classifies"), HAS.get(target, "classes")
                cure = f"; leave out --{data.answer_field}" if data.answer in DOES else ""
                raise ValueError(f"the model in {checkpoint} {does}, but the task {self.task.name} has {has}{cure}")

    def _writes(self) -> str | None:
        """What the model writes: "summary" or "completion"; None if it classifies."""
        if completes(self.model):
            return "completion"
        return "summary" if self.model.can_generate() else None

    def _as_answered(self, data: DataArguments) -> DataArguments:
        """The data's arguments with the kind of answer that a classifier gives."""
        kind: Any = problem_type(self.model.config)
        if kind == NUMBERS and self.model.config.num_labels != 1:
            raise ValueError(
                f"expected a model with one number a document, got {self.model.config.num_labels} outputs"
            )
        if data.answer in DOES:
            return data
        if data.task not in ("files", "hub"):
            if kind != CLASSES:
                raise ValueError(f"expected a model that answers as the task {data.task} does, with a class or a "
                                 f"summary; got one of {kind}")  # fmt: skip
            return data
        if data.problem_type not in (None, kind):
            raise ValueError(f"expected problem_type {kind}, as the model answers so; got {data.problem_type}")
        return replace(data, problem_type=kind, label_separator=data.label_separator if kind == LABELS else None)

    @cached_property
    def texts(self) -> DatasetDict:
        """The split alone; classes have the numbers that the model has for them."""
        data, task = self.arguments.data, self.task
        with refusing(ValueError):  # on every process, so that none waits for another that refused
            task.check_fields(data)
            whole = task.load_split(replace(data, max_eval_samples=None), self.split)

            def read(limit: int | None) -> Dataset:
                return self._numbered(sample(whole, limit, data.data_seed))

            found, told = read(data.max_eval_samples), whole.info.description or ""
            left_out = (found.info.description or "").removeprefix(told).strip()
            if left_out and self.accelerator.is_main_process:
                print(left_out)
            if task.alone(data, self.split) is None:
                check_drawn(self.checkpoint, self.given, self.split, task.target, read)
            return DatasetDict({self.split: found})

    def _numbered(self, split: Dataset) -> Dataset:
        """A split with the numbers that the model has for classes, in place of their names."""
        target, drop = self.task.target, self.arguments.data.drop_unknown_labels
        if target not in ("label", "labels"):
            return split
        unnamed = "; give the model their names, id2label in its config.json" * ("LABEL_0" in self.names)
        return as_classes(split, target, self.names, self.split, drop=drop, expected="labels that the model knows",
                          cure=unnamed)  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The names of the classes, by their numbers."""
        return [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    @cached_property
    def encoded(self) -> DatasetDict:
        with refusing(ValueError):
            return super().encoded

    @cached_property
    def checkpoint_hash(self) -> str:
        """The SHA-256 of the files of weights, which are the adapter's if it is one."""
        digest = hashlib.sha256()
        for path in sorted(self.checkpoint.glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()
