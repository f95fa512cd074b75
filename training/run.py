"""One experiment: everything that training it, saving it and going on with it needs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import DatasetDict
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

from shtopk.models import ModelArguments
from shtopk.tasks import DataArguments, Task
from shtopk.training.arguments import TrainArguments
from shtopk.training.batches import Updates
from shtopk.training.checkpoints import CheckpointError, Checkpoints, reason
from shtopk.training.evaluation import evaluate
from shtopk.training.progress import Progress
from shtopk.training.provenance import Provenance
from shtopk.training.snapshot import capture
from shtopk.training.together import on_main_process


@dataclass
class Run:
    """One experiment, ready to go.

    Attributes:
        plain: the model without what Accelerate put around it.
        answers: of the splits that models are tested on.
        updates, eval_every: how many there are to be, and how many lie between evaluations.
        metric: that picks the best checkpoint.
        lock: held while the run writes into its folder; of the main process.
    """

    command: str
    data: DataArguments
    model_arguments: ModelArguments
    arguments: TrainArguments
    accelerator: Accelerator
    task: Task
    texts: DatasetDict
    tokenizer: object
    model: torch.nn.Module
    plain: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    batches: Updates
    loaders: dict[str, DataLoader]
    answers: dict[str, list]
    updates: int
    eval_every: int
    metric: str
    provenance: Provenance
    checkpoints: Checkpoints
    progress: Progress
    lock: FileLock

    @property
    def output(self) -> Path:
        return Path(self.arguments.output_dir)

    @property
    def evaluation_due(self) -> bool:
        update = self.progress.update
        return self.progress.evaluated < update and (update % self.eval_every == 0 or update == self.updates)

    @property
    def done(self) -> bool:
        patience = self.arguments.patience
        out_of_patience = patience is not None and self.progress.since_best >= patience
        return (self.progress.update == self.updates or out_of_patience) and not self.evaluation_due

    def evaluate(self, split: str, name: str, stop=None) -> tuple[dict, list]:
        return evaluate(self.plain, self.loaders[split], self.task, self.tokenizer, self.answers[split],
                        self.accelerator, name, stop)  # fmt: skip

    def open_folder(self) -> None:
        """Make the run's folder, and keep other runs out of it; CheckpointError where that cannot be."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"another run writes into {self.output}; choose another output_dir") from None
        except OSError as error:
            raise CheckpointError(f"cannot write into {self.output}: {reason(error)}; choose another one") from error

    def save(self) -> None:
        """A checkpoint of the present update, from all processes."""
        snapshot = capture(
            self.accelerator, self.plain, self.optimizer, self.scheduler, self.progress, self.provenance.identity
        )
        on_main_process(
            self.accelerator,
            lambda: self.checkpoints.write(
                self.progress.update,
                lambda folder: snapshot.write(folder, self.plain, self.tokenizer),
                keep=[self.progress.best_update],
            ),
        )
