"""An experiment: what every command needs, whether it trains, evaluates or predicts."""

from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, ProjectConfiguration, set_seed
from datasets import DatasetDict, disable_progress_bars
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from shtopk.models import load_tokenizer
from shtopk.models.checkpoint import most_tokens
from shtopk.models.languages import begin_in, set_languages
from shtopk.models.windows import reading_of
from shtopk.tasks import Task, get_task
from shtopk.tasks.preprocess import lengths_of
from shtopk.training.arguments import Arguments
from shtopk.training.build import build_model
from shtopk.training.collectives import check_launcher
from shtopk.training.command_line import parse
from shtopk.training.console import command, refuse, refusing
from shtopk.training.kinds import Kind, kind_of
from shtopk.training.trackers import log_folder


class Experiment:
    """A command's arguments, and everything that follows from them. Each part is made when it is first asked for.

    A part can be replaced before that: `experiment.model = ...` evaluates another model on the same data.

    Args:
        arguments: all fields, as `parse` returns them.
        command: the line that started it, for the record.

    Example:
        >>> experiment = Experiment.prepare(["--config", "configs/bbc.yaml"])  # doctest: +SKIP
        >>> experiment.model = AutoModelForSequenceClassification.from_pretrained("runs/bbc")  # doctest: +SKIP
        >>> evaluate(experiment, "test", "test").metrics["test_accuracy"]  # doctest: +SKIP
    """

    writes: ClassVar[bool] = False  # into the output folder

    def __init__(self, arguments: Arguments, command: str = ""):
        self.arguments, self.command = arguments, command

    @classmethod
    def prepare(cls, argv: list[str], description: str | None = None):
        """Make an experiment from the words of a command line.

        Args:
            argv: the words, without the program.
            description: what `--help` shows first.
        """
        return cls(parse(argv, description, writes=cls.writes), command(argv))

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(self.arguments.training.output_dir)

    @property
    def precision(self) -> str:
        """The precision that is used: "no", "bf16" or "fp16". "auto" is resolved for this machine."""
        chosen = self.arguments.training.mixed_precision
        return best_precision() if chosen == "auto" else chosen

    @cached_property
    def accelerator(self) -> Accelerator:
        """Accelerate's `Accelerator`: the device, the processes and the trackers."""
        training = self.arguments.training
        with refusing(ValueError):
            check_launcher()
        accelerator = Accelerator(
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=self.arguments.training.ddp_timeout))],
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # train_step accumulates by itself
            mixed_precision=self.precision,
            log_with=training.trackers or None,
            project_config=ProjectConfiguration(str(self.output), str(self.output / log_folder(training))),
        )
        plugin = getattr(accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.fsdp_version != 2:
            refuse(f"expected version 2 of FSDP, got {plugin.fsdp_version}; see configs/accelerate/fsdp.yaml")
        if not accelerator.is_main_process:
            disable_progress_bar()
            disable_progress_bars()
        return accelerator

    @cached_property
    def task(self) -> Task:
        """The task, from the data's arguments; where they leave the kind of answer open, from the data."""
        data = self.arguments.data
        return get_task(data, self.texts if data.answer is None else None)

    @cached_property
    def kind(self) -> Kind:
        """Everything that depends on what the model answers with: classes, labels, numbers, summaries
        or completions.
        """
        return kind_of(self.task)

    @cached_property
    def texts(self) -> DatasetDict:
        """The splits, with documents and answers as texts."""
        task = get_task(self.arguments.data)
        with self.accelerator.main_process_first():
            return task.load(self.arguments.data)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the backbone, which knows the languages of documents and summaries."""
        given = self.arguments.model
        writes = self.task.target == "completion"
        tokenizer = load_tokenizer(given.backbone, given.backbone_revision, pad_with_end=writes)
        set_languages(tokenizer, given.source_lang, given.target_lang)
        return tokenizer

    @cached_property
    def model(self) -> PreTrainedModel:
        """A new model around the backbone, on the CPU; the same on every process."""
        texts = self.texts
        set_seed(self.arguments.training.seed)
        model = build_model(self.kind, self.arguments, texts)
        self.kind.let_read(model, self.tokenizer)
        if language := self.arguments.model.target_lang or self.arguments.model.source_lang:
            begin_in(model, self.tokenizer, language)
        return model

    @property
    def tokens_read(self) -> int | None:
        """To how many tokens a document is cut: max_tokens, or fewer where the model has no positions for more. None:
        all are read.
        """
        limits = (self.arguments.data.max_tokens, most_tokens(self.model))
        return min((limit for limit in limits if limit is not None), default=None)

    @cached_property
    def encoded(self) -> DatasetDict:
        """The splits as token numbers. What a model has no positions for is cut off."""
        texts, tokenizer, model = self.texts, self.tokenizer, self.model
        data = replace(self.arguments.data, max_tokens=self.tokens_read)
        with self.accelerator.main_process_first():
            start = getattr(model, "generation_start", None)
            return self.task.encode(tokenizer, texts, data, start, reading_of(model))

    @cached_property
    def collate(self):
        """The function that makes a batch of rows."""
        return self.kind.collate(self.tokenizer, self.model)

    @cached_property
    def by_length(self) -> dict[str, list[int]]:
        """{split: its rows, longest document first}, for evaluation: a batch then needs little padding."""
        splits = {name: split for name, split in self.encoded.items() if name != "train" or len(self.encoded) == 1}
        lengths = {name: lengths_of(split, "input_ids").to_numpy() for name, split in splits.items()}
        return {name: (-n).argsort(kind="stable").tolist() for name, n in lengths.items()}

    @cached_property
    def loaders(self) -> dict[str, DataLoader]:
        """{split: its batches} for evaluation, in the order of `by_length`, divided among the processes."""
        size, generator = self.arguments.training.eval_batch_size, torch.Generator()
        return {
            name: self.accelerator.prepare_data_loader(
                DataLoader(self.encoded[name].select(rows), size, collate_fn=self.collate, generator=generator)
            )
            for name, rows in self.by_length.items()
        }

    def references(self, split: str) -> list:
        """The true answers of a split."""
        return self.texts[split][self.task.target][:]

    def predictions(self, answers: np.ndarray | list) -> list:
        """The model's answers (see `shtopk.training.predict`) in the form of the references."""
        return self.task.decode(self.tokenizer, answers, self.kind.thresholds(self.model))


def best_precision() -> str:
    """bf16 if the device computes in it, else full precision."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if probe is not None and probe() else "no"
