"""A model's answers to a whole split, and their metrics."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from tqdm.auto import tqdm

from shtopk.training.console import refusing
from shtopk.training.experiment import Experiment
from shtopk.training.trial import check_generation
from shtopk.training.validation import loss_figures


class Evaluated(NamedTuple):
    """The metrics of a model on a split, with its answers and the references in the order of the documents."""

    metrics: dict[str, float]
    predictions: list  # in the form of the references: class numbers, lists of label numbers, numbers, or texts
    answers: np.ndarray | list  # what they were made of, see `predict`


class Stopped(Exception):
    """An evaluation was interrupted. The model is as it was."""


def predict(
    experiment: Experiment, split: str, desc: str, stop: Callable[[], bool] | None = None
) -> np.ndarray | list[list[int]]:
    """Answer a whole split, each document once, on however many processes.

    Args:
        experiment: with the model and the data.
        split: its name.
        desc: what the progress bar says.
        stop: called before each batch on all processes; if it returns true, `Stopped` is raised.

    Returns:
        The logits of n documents' classes or labels, [n, C], or their numbers, [n, 1], in float32; or a list with the
        tokens of each summary or completion, padded.
    """
    model, accelerator, kind = experiment.model.eval(), experiment.accelerator, experiment.kind
    if model.device.type != accelerator.device.type:
        model.to(accelerator.device)
    gathered = []
    for batch in tqdm(experiment.loaders[split], desc=desc, leave=False, disable=not accelerator.is_main_process):
        if stop is not None and stop():
            raise Stopped
        with torch.inference_mode(), accelerator.autocast():
            answers = kind.answer(model, batch)
            answers = accelerator.pad_across_processes(answers, dim=1, pad_index=kind.padding(model))
        gathered.append(accelerator.gather_for_metrics(answers).cpu())
    places = experiment.by_length[split]
    if gathered[0].is_floating_point():
        in_order = torch.empty(len(places), gathered[0].shape[1])
        in_order[places] = torch.cat(gathered)
        return in_order.numpy()
    tokens = [text for texts in gathered for text in texts.tolist()]  # as many as the longest of its batch
    return [text for _, text in sorted(zip(places, tokens, strict=True), key=lambda pair: pair[0])]


def predict_one(experiment: Experiment, split: str) -> None:
    """Answer the first document of a split and drop the answer. The model is warm then, so that times are fair.

    Options of generation that cannot work are refused in one line.
    """
    model, accelerator = experiment.model.eval().to(experiment.accelerator.device), experiment.accelerator
    with refusing(ValueError):
        check_generation(experiment, split)
    batch = send_to_device(experiment.collate([experiment.encoded[split][0]]), accelerator.device)
    with torch.inference_mode(), accelerator.autocast():
        experiment.kind.answer(model, batch)


def evaluate(experiment: Experiment, split: str, name: str, stop: Callable[[], bool] | None = None) -> Evaluated:
    """Answer a split and measure the answers.

    Args:
        experiment: with the model and the data.
        split: its name.
        name: stands before the name of each metric: "test" makes "test_accuracy".
        stop: see `predict`.

    Returns:
        The metrics, answers and references.
    """
    references = experiment.references(split)
    start = time.perf_counter()
    answers = predict(experiment, split, f"evaluate ({name})", stop)
    seconds = time.perf_counter() - start
    predictions = experiment.predictions(answers)
    results = experiment.task.compute_metrics(predictions, references)
    results |= {"runtime": seconds, "documents_per_second": len(references) / seconds, "documents": len(predictions)}
    results |= experiment.kind.speed(experiment.model, answers, seconds) | loss_figures(experiment, split)
    return Evaluated({f"{name}_{key}": value for key, value in results.items()}, predictions, answers)
