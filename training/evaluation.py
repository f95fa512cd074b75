"""A model's answers to a whole split, and their metrics."""

import time
from collections.abc import Callable

import torch
from tqdm.auto import tqdm

from shtopk.training.experiment import Experiment


class Stopped(Exception):
    """An evaluation was interrupted; the model is as it was."""


def predict(experiment: Experiment, split: str, desc: str, stop: Callable[[], bool] | None = None) -> list:
    """Class numbers, or the tokens of summaries, of a whole split: each document once, on however many processes.

    stop: called before each batch, on all processes; where it returns true, `Stopped` is raised.
    """
    model, accelerator, kind = experiment.model.eval(), experiment.accelerator, experiment.kind
    if model.device.type != accelerator.device.type:
        model.to(accelerator.device)
    predictions = []
    for batch in tqdm(experiment.loaders[split], desc=desc, leave=False, disable=not accelerator.is_main_process):
        if stop is not None and stop():
            raise Stopped
        with torch.inference_mode(), accelerator.autocast():
            answers = kind.answer(model, batch)
            answers = accelerator.pad_across_processes(answers, dim=1, pad_index=kind.padding(model))
        predictions += accelerator.gather_for_metrics(answers).tolist()
    return predictions


def evaluate(
    experiment: Experiment, split: str, name: str, stop: Callable[[], bool] | None = None
) -> tuple[dict[str, float], list]:
    """(metrics of a split, with a name in front; the predictions)."""
    references = experiment.references(split)
    start = time.perf_counter()
    answers = predict(experiment, split, f"evaluate ({name})", stop)
    seconds = time.perf_counter() - start
    predictions = experiment.task.decode(experiment.tokenizer, answers)
    results = experiment.task.compute_metrics(predictions, references)
    results |= {"runtime": seconds, "documents_per_second": len(references) / seconds, "documents": len(predictions)}
    results |= experiment.kind.speed(experiment.model, answers, seconds)
    return {f"{name}_{key}": value for key, value in results.items()}, predictions
