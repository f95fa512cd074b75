"""What an update and an answer (a class, or a generated token) cost with each of several command lines of train.py.

Trainings that run one after the other, or beside one another, meet a different machine each. So here all models are in
one process and take turns, batch by batch, three times over; of each batch the fastest turn counts.
"""

import math
import time
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from shtopk import anneal
from shtopk.training import Experiment
from shtopk.training.build import build_optimizer

UPDATES, SUMMARIES, CLASSES, TURNS = 12, 3, 12, 3  # batches of each kind, if there are so many
PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}


@dataclass
class Course:
    """A model in training.

    Attributes:
        updates: of the whole training.
        update_seconds, answer_seconds: of every batch, its fastest turn.
    """

    experiment: Experiment
    optimizer: torch.optim.Optimizer
    updates: int
    update_seconds: list[float]
    answer_seconds: list[float]


def pace(command_lines: list[list[str]], device: torch.device) -> list[dict]:
    """A training's updates, the seconds of one, and documents or generated tokens in a second, for each command line.

    They differ in the model alone; data and batch size are the first one's. The updates are spread over the
    temperature's schedule. Summaries are generated in full length, whatever the model has learnt, so that all generate
    the same number of tokens; reading the documents counts.
    """
    experiments = [Experiment.prepare(words) for words in command_lines]
    first = experiments[0]
    for experiment in experiments:
        experiment.texts = first.texts
        experiment.model.to(device)
    summaries = first.task.target == "summary"
    training = first.arguments.training
    torch.manual_seed(0)
    batches = []
    for name, size, count in (
        ("train", training.batch_size, UPDATES),
        ("test", training.eval_batch_size, SUMMARIES if summaries else CLASSES),
    ):
        loader = DataLoader(first.encoded[name], size, shuffle=True, collate_fn=first.collate)
        batches.append([batch.to(device) for batch in islice(loader, count)])
    to_learn, to_answer = batches
    tokens = first.arguments.data.max_summary_tokens

    courses = [
        Course(
            experiment,
            build_optimizer(experiment.model, experiment.arguments.training),
            math.ceil(training.epochs * math.ceil(len(first.encoded["train"]) / training.batch_size)),
            [math.inf] * len(to_learn),
            [math.inf] * len(to_answer),
        )
        for experiment in experiments
    ]
    for course in courses:  # warm-up
        update(course, to_learn[0], 0.0, device)
        answer(course, to_answer[0], tokens, device)
    for _ in tqdm(range(TURNS), desc="pace"):
        for i, batch in enumerate(to_learn):
            for course in courses:
                seconds = update(course, batch, i / max(1, len(to_learn) - 1), device)
                course.update_seconds[i] = min(seconds, course.update_seconds[i])
        for i, batch in enumerate(to_answer):
            for course in courses:
                seconds = answer(course, batch, tokens, device)
                course.answer_seconds[i] = min(seconds, course.answer_seconds[i])
    documents = sum(len(batch["input_ids"]) for batch in to_answer)
    name, answers = "documents_per_second", documents
    if summaries:
        name, answers = "generated_tokens_per_second", tokens * documents
    return [
        {
            "updates": course.updates,
            "update_seconds": sum(course.update_seconds) / len(to_learn),
            name: answers / sum(course.answer_seconds),
        }
        for course in courses
    ]


def update(course: Course, batch: dict, progress: float, device: torch.device) -> float:
    """The seconds of an update."""
    model = course.experiment.model.train()
    start = now(device)
    anneal(model, progress)
    with autocast(course.experiment, device):
        loss = model(**batch).loss
    loss.backward()
    # All parameters at once: that costs what the two parts of train.py cost.
    nn.utils.clip_grad_norm_(model.parameters(), course.experiment.arguments.training.max_norm)
    course.optimizer.step()
    course.optimizer.zero_grad()
    return now(device) - start


def answer(course: Course, batch: dict, tokens: int, device: torch.device) -> float:
    """The seconds of answering a batch; summaries of so many tokens."""
    model = course.experiment.model.eval()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    start = now(device)
    with torch.inference_mode(), autocast(course.experiment, device):
        course.experiment.kind.answer(model, given, tokens)
    return now(device) - start


def autocast(experiment: Experiment, device: torch.device) -> torch.autocast:
    dtype = PRECISION[experiment.precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
