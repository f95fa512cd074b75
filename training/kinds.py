"""Classifier or summarizer: everything that differs between training the one and the other.

The task decides once which of the two it is (`kind_of`). Nothing else in training asks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
)

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingForSequenceClassification
from shtopk.models.answers import probabilities
from shtopk.tasks import Task, write_samples
from shtopk.training.arguments import Arguments


class Kind(ABC):
    """A kind of model: a classifier or a summarizer."""

    auto_class: ClassVar[Any]  # loads a saved model
    collator: ClassVar[Any]  # called with a tokenizer, it gives rows -> batch
    forward_methods: ClassVar[tuple[str, ...]] = ()  # besides `forward`: FSDP gathers the parameters for them

    @abstractmethod
    def from_backbone(self, arguments: Arguments, texts: DatasetDict, fields: Mapping[str, Any]):
        """Build a model around the backbone of the arguments, with these fields of its configuration."""

    @abstractmethod
    def answer(self, model, batch: Mapping[str, Tensor], new_tokens: int | None = None) -> Tensor:
        """Answer a batch: logits [B, C] in float32, or the tokens of summaries [B, T].

        Args:
            new_tokens: generate exactly so many for each summary, whatever the model has learnt.
        """

    @abstractmethod
    def truth(self, model, answer: Any) -> dict[str, str]:
        """The known answer to a document, as an argument of `show_document`."""

    def answers_in(self, output: Any) -> list:
        """The answers in a model's output for documents with their labels, if it holds any: see `answer`."""
        return []

    def loss(self, model, answers: list, labels: list) -> float | None:
        """The mean loss of answers to a split; None if they do not tell it."""
        return None

    def padding(self, model) -> int:
        """The number that fills up answers of different lengths."""
        return 0

    def sureness(self, model, answers: list) -> list[float] | None:
        """The probability of each predicted class, in [0, 1]; None if answers are texts."""
        return None

    def speed(self, model, answers: list, seconds: float) -> dict[str, float]:
        """Measures of speed beside documents per second."""
        return {}

    def write_samples(self, folder: Path, split: Dataset, predictions: list, baselines: Mapping[str, list]) -> None:
        """Write a page of answers to read, if they are texts."""
        return


class Classifier(Kind):
    """Documents are answered with classes."""

    auto_class = AutoModelForSequenceClassification
    collator = DataCollatorWithPadding

    def from_backbone(self, arguments, texts, fields):
        labels = texts["train"].features["label"].names
        return TopKPoolingForSequenceClassification.from_backbone(
            arguments.model.backbone,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            classifier_dropout=arguments.model.classifier_dropout,
            **fields,
        )

    def answer(self, model, batch, new_tokens=None):
        return model(**batch).logits.float()

    def answers_in(self, output):
        return output.logits.float().tolist()

    def loss(self, model, answers, labels):
        logits = torch.tensor(answers)
        return model.loss_function(torch.tensor(labels), pooled_logits=logits, config=model.config).item()

    def sureness(self, model, answers):
        return probabilities(torch.tensor(answers), model.config).amax(-1).tolist()

    def truth(self, model, answer):
        return {"label": model.config.id2label[answer]}


class Summarizer(Kind):
    """Documents are answered with summaries."""

    auto_class = AutoModelForSeq2SeqLM
    collator = DataCollatorForSeq2Seq
    forward_methods = ("generate",)

    def from_backbone(self, arguments, texts, fields):
        given = arguments.model
        model = TopKPoolingForConditionalGeneration.from_backbone(
            given.backbone,
            decoder=given.decoder,
            decoder_layers=given.decoder_layers,
            copy_head=given.copy_head,
            **fields,
        )
        model.set_generation(max_new_tokens=arguments.data.max_summary_tokens, **given.generation_options)
        return model

    def answer(self, model, batch, new_tokens=None):
        exactly = {} if new_tokens is None else {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
        return model.generate(
            **{name: value for name, value in batch.items() if name != "labels"},
            synced_gpus=isinstance(model, FSDPModule),  # whose processes need each other for every token
            **exactly,
        )

    def padding(self, model):
        return model.generation_config.pad_token_id

    def speed(self, model, answers, seconds):
        pad = self.padding(model)
        generated = sum(token != pad for summary in answers for token in summary[1:])  # without the start token
        return {"generated_tokens_per_second": generated / seconds}

    def truth(self, model, answer):
        return {"reference": answer}

    def write_samples(self, folder, split, predictions, baselines):
        write_samples(folder, split, predictions, baselines)


def kind_of(task: Task) -> Kind:
    """The kind of model for a task."""
    return {"label": Classifier, "summary": Summarizer}[task.target]()
