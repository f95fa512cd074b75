"""The loss on the documents of a split: on all of them at an evaluation, on a few of them between evaluations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device

from shtopk.training.batches import items_of
from shtopk.training.collectives import reduce_sum
from shtopk.training.experiment import Experiment
from shtopk.training.run import Run

SPLIT = "validation"
HIGHEST = 700.0  # of a loss whose exponential is a number
POINTS = 5  # looks at validation documents that a run has at least, evaluations among them


def validation_loss(run: Run, answers: np.ndarray | list) -> float:
    """The mean loss of the validation split, over its documents or over target tokens, as in training.

    Args:
        run: its model is in eval mode afterwards.
        answers: to the split, as `evaluation.predict` gives them. The loss of classes follows from them; that of
            summaries takes another pass, which all processes share.
    """
    model, labels = run.model.eval(), run.encoded[SPLIT]["labels"][:]
    loss = run.kind.loss(model, answers, labels)
    return split_loss(run, SPLIT) if loss is None else loss


def split_loss(experiment: Experiment, split: str) -> float:
    """The mean of the model's own loss on a split, over its documents or target tokens. All processes share the work.

    Args:
        experiment: its model is in eval mode afterwards.
        split: its name.
    """
    accelerator, total, items = experiment.accelerator, 0.0, 0.0
    experiment.model.eval()
    rows, processes = experiment.by_length[split], accelerator.num_processes
    size = experiment.arguments.training.eval_batch_size * processes
    for start in range(0, len(rows), size):
        mine = rows[start : start + size][accelerator.process_index :: processes]
        output, terms = _forward(experiment, split, mine or rows[:1])  # FSDP needs every process for each batch
        total += output.loss.item() * terms * bool(mine)
        items += terms * bool(mine)
    total, items = reduce_sum(accelerator, total, items)
    return total / items


class Probe:
    """A look at a few validation documents between evaluations, where a run has few of these.

    It picks no checkpoint and ends no training: it shows how training goes. The documents are the same throughout,
    spread evenly over the split. Every process looks at all of them.

    Args:
        run: one that has not begun.
    """

    def __init__(self, run: Run):
        self.run = run
        n, count = len(run.encoded[SPLIT]), run.arguments.training.probe_documents
        self.every = -(-run.updates // POINTS) if -(-run.updates // run.eval_every) < POINTS and count else 0
        chosen = {i * n // min(count, n) for i in range(min(count, n))} if self.every else set()
        self.rows = [row for row in run.by_length[SPLIT] if row in chosen] if chosen else []

    @property
    def due(self) -> bool:
        """Whether it is time to look, after the present update."""
        return bool(self.rows) and self.run.progress.update % self.every == 0 and not self.run.evaluation_due

    def measure(self) -> dict[str, float]:
        """The loss of these documents and, unless texts are written, the metrics, as "probe_loss" and so on."""
        run, answers, total, items = self.run, [], 0.0, 0
        run.model.eval()
        size = run.arguments.training.eval_batch_size
        for start in range(0, len(self.rows), size):
            output, terms = _forward(run, SPLIT, self.rows[start : start + size])
            total, items = total + output.loss.item() * terms, items + terms
            answers += run.kind.answers_in(output)
        found = {"loss": total / items, "documents": len(self.rows)}
        if answers:
            references = run.references(SPLIT)
            predictions = run.predictions(answers)
            found |= run.task.compute_metrics(predictions, [references[row] for row in self.rows])
        return {f"probe_{name}": value for name, value in found.items()}


def loss_figures(experiment: Experiment, split: str) -> dict[str, float]:
    """The loss of a split as a figure of the answers to it, with its exponential, the perplexity; {} where the loss
    says nothing that the metrics do not.
    """
    if not experiment.kind.measures_loss:
        return {}
    loss = split_loss(experiment, split)
    return {"loss": loss, "perplexity": math.exp(min(loss, HIGHEST))}


def _forward(experiment: Experiment, split: str, rows: list[int]) -> tuple[Any, int]:
    """The model's output for these documents, and the number of terms that its loss is the mean of."""
    batch = experiment.collate([experiment.encoded[split][row] for row in rows])
    terms = items_of(batch["labels"])
    inputs = experiment.kind.inputs(send_to_device(batch, experiment.accelerator.device))
    with torch.inference_mode(), experiment.accelerator.autocast():
        return experiment.model(**inputs), terms
