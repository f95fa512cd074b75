"""A run: an experiment that trains, with everything that is needed to save it and to go on with it."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow.compute
import torch
from accelerate.utils import set_seed
from filelock import FileLock, Timeout
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import get_scheduler

from shtopk.tasks.preprocess import lengths_of
from shtopk.training.answer_checks import problem_of_answers
from shtopk.training.arguments import Arguments
from shtopk.training.batches import UpdateBatches
from shtopk.training.build import build_optimizer
from shtopk.training.checkpoints import CheckpointError, Checkpoints, reason
from shtopk.training.collectives import sharding
from shtopk.training.compiling import compile_encoder
from shtopk.training.console import refusing
from shtopk.training.experiment import Experiment
from shtopk.training.hub import open_repository
from shtopk.training.provenance import Provenance
from shtopk.training.run_folder import CHECKPOINTS, LOCK
from shtopk.training.slots import check_slots
from shtopk.training.trial import check_generation


@dataclass
class Progress:
    """The counters of a training loop."""

    update: int = 0  # optimizer updates done
    evaluated: int = 0  # number of the update before the last evaluation; 0: none so far
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best evaluation so far
    best_update: int = 0  # number of the update before it
    since_best: int = 0  # evaluations after it
    documents: int = 0  # read in training so far, by all processes together
    tokens: int = 0
    seconds: float = 0.0  # spent in training so far

    def judge(self, results: dict[str, float], metric: str, *, lower_is_better: bool = False) -> None:
        """Record an evaluation after the present update. By default a higher `metric` is better."""
        self.evaluated = self.update
        sign = -1 if lower_is_better else 1
        if sign * results[metric] > sign * self.best.get(metric, -sign * math.inf):
            self.best, self.best_update, self.since_best = results, self.update, 0
        else:
            self.since_best += 1


class Run(Experiment):
    """An experiment, loaded and ready to train. Input that cannot be used is refused in one line.

    Args:
        arguments: all fields, as `parse` returns them.
        command: the line that started it, for the record.

    Attributes:
        wrapped: the model inside DDP, if there are several processes; `model` stays the model itself.
        optimizer: torch's.
        scheduler: torch's; it steps once an update.
        updates: how many are planned.
        eval_every: updates between two evaluations.
        metric: the name of the metric that picks the best checkpoint.
        lower_is_better: whether less of it is better.
        lock: held by the main process while it writes into the run's folder.
    """

    writes = True

    def __init__(self, arguments: Arguments, command: str = ""):
        super().__init__(arguments, command)
        training, accelerator = arguments.training, self.accelerator
        with refusing(ValueError, ImportError):  # ImportError: an attention whose package is missing
            _ = self.texts  # which may decide what kind of answer is asked for
            if problem := problem_of_answers(arguments, [self.task]):
                raise ValueError(problem)
            documents = self.encoded["train"]
            lengths = {name: lengths_of(split, "input_ids") for name, split in self.encoded.items()}
            check_slots(arguments, max(pyarrow.compute.max(n).as_py() or 0 for n in lengths.values()))
        self.batches = UpdateBatches(
            documents,
            self.collate,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            processes=accelerator.num_processes,
            process=accelerator.process_index,
            seed=training.seed,
            lengths=lengths["train"].to_pylist() if training.group_by_length else None,
            workers=training.workers,
            pinned=accelerator.device.type == "cuda",
        )
        optimizer = build_optimizer(self.model, training)
        with sharding(accelerator, self.model):
            self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.model = accelerator.unwrap_model(self.wrapped)
        for method in self.kind.forward_methods:
            register_fsdp_forward_method(self.model, method)  # nothing without FSDP
        if training.torch_compile:
            compile_encoder(self.model)
        with refusing(ValueError):
            check_generation(self, "validation")
        set_seed(training.seed, device_specific=True)  # processes have the same weights, but need not the same dropout
        self.updates = training.max_steps or math.ceil(round(training.epochs * len(self.batches), 6))
        # Not prepared by Accelerate, which would step it once for each process.
        self.scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
            training.schedule,
            self.optimizer,
            # Of a single update none, or nothing would be learnt.
            num_warmup_steps=min(math.ceil(round(training.warmup * self.updates, 6)), self.updates - 1),
            num_training_steps=self.updates,
        )
        self.eval_every = training.eval_every or len(self.batches)
        metric = training.metric or self.task.selectors[0]
        self.metric, self.lower_is_better = f"eval_{metric}", metric in self.task.lower_is_better
        self.provenance = Provenance(self, self.batches.size)
        self.checkpoints = Checkpoints(self.output / CHECKPOINTS, training.total_limit)
        self.progress = Progress()
        self.lock = FileLock(self.output / LOCK)

    @cached_property
    def collate(self):
        """The function that makes a batch of rows; for a GPU in half precision, lengths are multiples of 8."""
        aligned = self.precision != "no" and self.accelerator.device.type == "cuda"
        return self.kind.collate(self.tokenizer, self.model, pad_to_multiple_of=8 if aligned else None)

    @property
    def evaluation_due(self) -> bool:
        """Whether the model is to be evaluated now."""
        update = self.progress.update
        return self.progress.evaluated < update and (update % self.eval_every == 0 or update == self.updates)

    @property
    def done(self) -> bool:
        """Whether training has come to its end: all updates are done, or the patience is used up."""
        patience = self.arguments.training.patience
        out_of_patience = patience is not None and self.progress.since_best >= patience
        return (self.progress.update == self.updates or out_of_patience) and not self.evaluation_due

    def open_folder(self) -> None:
        """Make the run's folder and lock it against other runs; and make the repository on the hub, if one is named.

        Raises:
            CheckpointError: the folder or the repository cannot be made, or another run writes into the folder.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"another run writes into {self.output}; choose another output_dir") from None
        except OSError as error:
            raise CheckpointError(f"cannot write into {self.output}: {reason(error)}; choose another one") from error
        if (name := self.arguments.training.push_to_hub) is not None:
            private = self.arguments.training.private
            open_repository(name, private=private, otherwise="leave push_to_hub out")
