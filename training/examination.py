"""The figures of a checkpoint on a split: `evaluate` writes them, and `sweep` has them for each setting."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch

from shtopk.models.answers import probabilities
from shtopk.tasks.label_report import multi_label_report
from shtopk.tasks.names import ROUGE
from shtopk.tasks.number_report import regression_report
from shtopk.tasks.report import classification_report
from shtopk.tasks.rouge import document_scores
from shtopk.training.evaluation import predict
from shtopk.training.provenance import device_name, hash_of
from shtopk.training.trained import Trained
from shtopk.training.validation import loss_figures

BOUNDS = ("_low", "_high")
PACKAGES = ("shtopk", "torch", "transformers", "datasets", "accelerate")


class Examined(NamedTuple):
    """An evaluation of a checkpoint."""

    results: dict[str, Any]  # everything that is known of it, for JSON
    scores: list[float]  # see `Measured`
    answers: np.ndarray | list  # see `evaluation.predict`


class Measured(NamedTuple):
    """The figures of the answers to a split.

    The score of a document is 1 where its class is right, else 0; minus the squared error of its number; ROUGE-L of
    its summary or completion. Of labels it is the document's part in f1_micro, so that the mean of the scores is
    f1_micro (see `parts_of_f1_micro`).
    """

    figures: dict[str, Any]  # metrics and intervals (95 %, over documents); of classes as `classification_report`
    scores: list[float]  # of every document, more is better


def examine(trained: Trained, *, baselines: bool = True) -> Examined:
    """Answer the split and measure the answers. The result is the same on every process.

    Call `predict_one` before, for times that are fair.

    Args:
        baselines: also measure answers that need no model.
    """
    split, task, model = trained.split, trained.task, trained.model
    references, data = trained.references(split), trained.arguments.data
    _ = trained.loaders  # tokenised before the clock runs
    start = time.perf_counter()
    answers = predict(trained, split, f"evaluate ({split})")
    seconds = time.perf_counter() - start
    measured = MEASURES[task.target](trained, answers, references)
    measured.figures["metrics"] = loss_figures(trained, split) | measured.figures["metrics"]
    results = {
        "checkpoint": {"folder": str(trained.checkpoint), "sha256": trained.checkpoint_hash,
                       "model": type(model).__name__},
        "data": {"description": task.description, "split": split, "documents": len(references),
                 "sha256": hash_of(trained.texts[split], task.target),
                 "fields": {name: value for name, value in vars(data).items() if value is not None}},
        **measured.figures,
        "speed": {"seconds": seconds, "documents_per_second": len(references) / seconds,
                  **trained.kind.speed(model, answers, seconds)},
        "device": device_name(trained.accelerator.device),
        "processes": trained.accelerator.num_processes,
        "mixed_precision": trained.accelerator.mixed_precision,
        "versions": {name: version(name) for name in PACKAGES},
    }  # fmt: skip
    if baselines and trained.accelerator.is_main_process:
        found = task.baselines({"test": trained.texts[split]})
        results |= {"baselines": {name: task.compute_metrics(texts, references) for name, texts in found.items()}}
    return Examined(results, measured.scores, answers)


def _classes(trained: Trained, answers: np.ndarray, references: list[int]) -> Measured:
    logits = torch.as_tensor(answers)
    given, shares = trained.predictions(answers), probabilities(logits, trained.model.config).double().numpy()
    right = [float(one == true) for one, true in zip(given, references, strict=True)]
    return Measured(classification_report(given, references, shares, trained.names), right)


def _labels(trained: Trained, answers: np.ndarray, references: list[list[int]]) -> Measured:
    shares = probabilities(torch.as_tensor(answers), trained.model.config).double().numpy()
    figures, of_documents = multi_label_report(trained.predictions(answers), references, shares, trained.names)
    thresholds = trained.kind.thresholds(trained.model)
    for row, threshold in zip(figures["classes"].values(), thresholds or [], strict=bool(thresholds)):
        row["threshold"] = threshold
    return Measured(figures, of_documents)


def _numbers(trained: Trained, answers: np.ndarray, references: list[float]) -> Measured:
    return Measured(*regression_report(trained.predictions(answers), references))


def _texts(trained: Trained, answers: list[list[int]], references: list[str]) -> Measured:
    texts = trained.predictions(answers)
    found = trained.task.compute_metrics(texts, references)
    intervals = {name: [found[name + bound] for bound in BOUNDS] for name in found if name + BOUNDS[0] in found}
    metrics = {name: value for name, value in found.items() if not name.endswith(BOUNDS)}
    scores = document_scores(texts, references)[:, ROUGE.index("rougeL")].tolist()
    return Measured({"metrics": metrics, "intervals": intervals}, scores)


MEASURES: dict[str, Callable[[Trained, Any, list], Measured]] = {
    "label": _classes,
    "labels": _labels,
    "value": _numbers,
    "summary": _texts,
    "completion": _texts,
}  # by what is answered
