"""Classes, labels, numbers, summaries, completions: everything that differs between training for one and the other.

The task decides once which of these a model answers with (`kind_of`). Nothing else in training asks.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
)

from shtopk.integrations.decoders.few_logits import with_few_logits
from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingForSequenceClassification
from shtopk.models.answers import CLASSES, LABELS, NUMBERS, probabilities
from shtopk.models.language_model import language_model, let_complete, set_completions
from shtopk.tasks import DataArguments, Task, write_samples
from shtopk.training.arguments import Arguments
from shtopk.training.collators import MultiLabelCollator, targets
from shtopk.training.completions import IGNORED, CompletionCollator, prompts_of
from shtopk.training.losses import ClassLoss, LabelLoss, NumberLoss, as_tensor, class_weights, label_weights, smoothed


class Kind(ABC):
    """A kind of model, by what it answers with."""

    auto_class: ClassVar[Any]  # loads a saved model
    collator: ClassVar[Any]  # see `collate`
    forward_methods: ClassVar[tuple[str, ...]] = ()  # besides `forward`: FSDP gathers the parameters for them
    measures_loss: ClassVar[bool] = False  # the loss is a figure of the answers to a split, beside the metrics

    @abstractmethod
    def from_backbone(self, arguments: Arguments, texts: DatasetDict, fields: Mapping[str, Any]):
        """Build a model around the backbone of the arguments, with these fields of its configuration."""

    def set_loss(self, model, arguments: Arguments, texts: DatasetDict) -> None:
        """Let a new model minimise what the arguments ask for, if that is not its own loss.

        Raises:
            ValueError: the arguments do not fit the labels in the training split.
        """
        return

    def let_read(self, model, tokenizer) -> None:
        """Make a new model and its tokenizer ready for each other."""
        return

    def inputs(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a model takes to make the loss of a batch."""
        return batch

    def training_loss(self, out, labels: Tensor, smoothing: float) -> Tensor:
        """The loss in a model's output for a batch with these labels."""
        return out.loss

    def collate(self, tokenizer, model, **options: Any) -> Any:
        """The function that makes a batch of rows. The options are transformers' collator's."""
        return self.collator(tokenizer, **options)

    def thresholds(self, model) -> list[float] | None:
        """The probability from which on each label holds; None if there is none or all have 0.5."""
        return None

    @abstractmethod
    def answer(self, model, batch: Mapping[str, Tensor], new_tokens: int | None = None) -> Tensor:
        """Answer a batch: logits [B, C] or numbers [B, 1] in float32, or tokens of summaries or completions [B, T].

        Args:
            new_tokens: generate exactly so many for each of these, whatever the model has learnt.
        """

    @abstractmethod
    def truth(self, model, answer: Any) -> dict[str, Any]:
        """The known answer to a document, as an argument of `show_document`."""

    def answers_in(self, output: Any) -> list:
        """The answers in a model's output for documents with their labels, if it holds any: see `answer`."""
        return []

    def loss(self, model, answers: np.ndarray | list, labels: list) -> float | None:
        """The mean loss of answers to a split; None if they do not tell it."""
        return None

    def padding(self, model) -> int:
        """The number that fills up answers of different lengths."""
        return 0

    def sureness(self, model, answers: np.ndarray | list, predictions: list) -> list | None:
        """The probability of each predicted class, in [0, 1], or those of all predicted labels; None for others."""
        return None

    def speed(self, model, answers: np.ndarray | list, seconds: float) -> dict[str, float]:
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
        return self._from_backbone(arguments, texts["train"].features["label"].names, fields, CLASSES)

    def _from_backbone(self, arguments: Arguments, names: Sequence[str], fields: Mapping[str, Any], problem_type: str):
        return TopKPoolingForSequenceClassification.from_backbone(
            arguments.model.backbone,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            problem_type=problem_type,
            classifier_dropout=arguments.model.classifier_dropout,
            **fields,
        )

    def set_loss(self, model, arguments, texts):
        given, smoothing = arguments.training.weights_of_classes, arguments.training.label_smoothing
        if given or smoothing:
            split = texts["train"]
            counts = Counter(split["label"][:])
            names = split.features["label"].names
            weights = given and class_weights(given, names, [counts[i] for i in range(len(names))], len(split))
            model.loss_function = ClassLoss(as_tensor(weights), smoothing)

    def answer(self, model, batch, new_tokens=None):
        return model(**batch).logits.float()

    def answers_in(self, output):
        return output.logits.float().tolist()

    def loss(self, model, answers, labels):
        logits = torch.as_tensor(answers)
        return model.loss_function(self.targets(model, labels), pooled_logits=logits, config=model.config).item()

    def targets(self, model, labels: list) -> Tensor:
        """The labels of a split as the loss takes them."""
        return torch.tensor(labels)

    def sureness(self, model, answers, predictions):
        return probabilities(torch.as_tensor(answers), model.config).amax(-1).tolist()

    def truth(self, model, answer):
        return {"label": model.config.id2label[answer]}


class MultiLabelClassifier(Classifier):
    """Documents are answered with any number of labels."""

    def from_backbone(self, arguments, texts, fields):
        return self._from_backbone(arguments, texts["train"].features["labels"].feature.names, fields, LABELS)

    def set_loss(self, model, arguments, texts):
        given, smoothing = arguments.training.weights_of_classes, arguments.training.label_smoothing
        if given or smoothing:
            split = texts["train"]
            counts = Counter(label for labels in split["labels"][:] for label in labels)
            names = split.features["labels"].feature.names
            weights = given and label_weights(given, names, [counts[i] for i in range(len(names))], len(split))
            model.loss_function = LabelLoss(as_tensor(weights), smoothing)

    def collate(self, tokenizer, model, **options):
        return MultiLabelCollator(tokenizer, count=model.config.num_labels, **options)

    def targets(self, model, labels):
        return targets(labels, model.config.num_labels)

    def thresholds(self, model):
        return getattr(model.config, "label_thresholds", None)

    def sureness(self, model, answers, predictions):
        shares = probabilities(torch.as_tensor(answers), model.config)
        return [of_labels[given].tolist() for of_labels, given in zip(shares, predictions, strict=True)]

    def truth(self, model, answer):
        return {"label": [model.config.id2label[i] for i in answer]}


class Regressor(Classifier):
    """Documents are answered with a number."""

    def from_backbone(self, arguments, texts, fields):
        numbers = torch.tensor(texts["train"]["value"][:], dtype=torch.float64)
        check_different(numbers, arguments.data)
        scale = {"target_mean": numbers.mean().item(), "target_std": numbers.std(correction=0).item()}
        return self._from_backbone(arguments, [arguments.data.label_column], {**fields, **scale}, NUMBERS)

    def set_loss(self, model, arguments, texts):
        model.loss_function = NumberLoss(model.config.target_std)

    def sureness(self, model, answers, predictions):
        return None

    def truth(self, model, answer):
        return {"label": answer}


def check_different(numbers: Tensor, data: DataArguments) -> None:
    """Raise ValueError if the numbers of all training documents are equal."""
    if numbers.amin() == numbers.amax():
        column = f"the column {data.label_column!r} of {data.train_file or data.dataset_name}"
        got = f"{numbers[0].item():g} for all {len(numbers):,} training documents, so there is nothing to learn"
        raise ValueError(f"expected numbers that differ in {column}, got {got}; choose one with --label_column")


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

    def training_loss(self, out, labels, smoothing):
        return smoothed(out.loss, out.logits, labels, smoothing) if smoothing else out.loss

    def answer(self, model, batch, new_tokens=None):
        return self.generate(model, {name: value for name, value in batch.items() if name != "labels"}, new_tokens)

    def generate(self, model, inputs: Mapping[str, Tensor], new_tokens: int | None) -> Tensor:
        """The tokens that a model generates for these inputs."""
        exactly = {} if new_tokens is None else {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
        together = isinstance(model, FSDPModule)  # whose processes need each other for every token
        return model.generate(**inputs, synced_gpus=together, **exactly)

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


class Completer(Summarizer):
    """Prompts are answered with completions, by a causal language model."""

    auto_class = AutoModelForCausalLM
    measures_loss = True

    def from_backbone(self, arguments, texts, fields):
        given = arguments.model
        own = {name: value for name, value in fields.items() if name not in OF_ENCODERS}
        model = language_model(given.backbone, keep_last=given.keep_last, **own)
        set_completions(model, max_new_tokens=arguments.data.max_completion_tokens, **given.generation_options)
        return model

    def let_read(self, model, tokenizer):
        let_complete(model, tokenizer)

    def inputs(self, batch):
        return with_few_logits(batch)

    def training_loss(self, out, labels, smoothing):
        told = labels[:, 1:][labels[:, 1:] != IGNORED]  # as `inputs` has it
        return smoothed(out.loss, out.logits, told, smoothing) if smoothing else out.loss

    def collate(self, tokenizer, model, **options):
        return CompletionCollator(tokenizer.pad_token_id, **options)

    def answer(self, model, batch, new_tokens=None):
        prompts = prompts_of(batch)
        return self.generate(model, prompts, new_tokens)[:, prompts["input_ids"].shape[1] :]

    def speed(self, model, answers, seconds):
        pad = self.padding(model)
        return {"generated_tokens_per_second": sum(token != pad for one in answers for token in one) / seconds}


# What does not belong to a language model: it reads prompts whole, and pools between its layers alone.
OF_ENCODERS = ("k", "window", "windows_at_once", "window_k", "source_prefix")


def kind_of(task: Task) -> Kind:
    """The kind of model for a task."""
    kinds: dict[str, type[Kind]] = {
        "label": Classifier,
        "labels": MultiLabelClassifier,
        "value": Regressor,
        "summary": Summarizer,
        "completion": Completer,
    }
    return kinds[task.target]()
