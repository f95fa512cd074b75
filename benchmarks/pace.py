"""What an update and an answer (a class, or a generated token) cost with each of several command lines of train.py.

Trainings that run one after the other, or beside one another, meet a different machine each. So here all models are in
one process and take turns, batch by batch, three times over; of each batch the fastest turn counts.
"""

import math
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding

import train
from shtopk import anneal
from shtopk.models import load_tokenizer
from shtopk.tasks import get_task
from shtopk.training.arguments import TrainArguments
from shtopk.training.command_line import parse

UPDATES, SUMMARIES, CLASSES, TURNS = 12, 3, 12, 3  # batches of each kind, if there are so many
PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}


@dataclass
class Course:
    """A model in training.

    Attributes:
        updates: of the whole training.
        update_seconds, answer_seconds: of every batch, its fastest turn.
    """

    model: nn.Module
    arguments: TrainArguments
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
    parsed = [parse(words)[1:] for words in command_lines]
    data, model_arguments, arguments = parsed[0]
    task = get_task(data)
    texts, tokenizer = task.load(data), load_tokenizer(model_arguments.backbone)
    models = [train.build_model(task, texts, data, its).to(device) for _, its, _ in parsed]
    splits = task.encode(tokenizer, texts, data, models[0].generation_start)
    summaries = task.target == "summary"
    collate = DataCollatorForSeq2Seq(tokenizer) if summaries else DataCollatorWithPadding(tokenizer)
    torch.manual_seed(0)
    batches = []
    for name, size, count in (
        ("train", arguments.batch_size, UPDATES),
        ("test", arguments.eval_batch_size, SUMMARIES if summaries else CLASSES),
    ):
        loader = DataLoader(splits[name], size, shuffle=True, collate_fn=collate)
        batches.append([batch.to(device) for batch in islice(loader, count)])
    to_learn, to_answer = batches

    courses = [
        Course(
            model,
            its,
            train.build_optimizer(model, its),
            math.ceil(its.epochs * math.ceil(len(splits["train"]) / its.batch_size)),
            [math.inf] * len(to_learn),
            [math.inf] * len(to_answer),
        )
        for model, (_, _, its) in zip(models, parsed, strict=True)
    ]
    for course in courses:  # warm-up
        update(course, to_learn[0], 0.0, device)
        answer(course, to_answer[0], data.max_summary_tokens, device)
    for _ in tqdm(range(TURNS), desc="pace"):
        for i, batch in enumerate(to_learn):
            for course in courses:
                seconds = update(course, batch, i / max(1, len(to_learn) - 1), device)
                course.update_seconds[i] = min(seconds, course.update_seconds[i])
        for i, batch in enumerate(to_answer):
            for course in courses:
                seconds = answer(course, batch, data.max_summary_tokens, device)
                course.answer_seconds[i] = min(seconds, course.answer_seconds[i])
    documents = sum(len(batch["input_ids"]) for batch in to_answer)
    name, answers = "documents_per_second", documents
    if summaries:
        name, answers = "generated_tokens_per_second", data.max_summary_tokens * documents
    return [
        {
            "updates": course.updates,
            "update_seconds": sum(course.update_seconds) / len(to_learn),
            name: answers / sum(course.answer_seconds),
        }
        for course in courses
    ]


def update(course: Course, batch: dict, progress: float, device: torch.device) -> float:
    """Its seconds."""
    course.model.train()
    start = now(device)
    anneal(course.model, progress)
    with autocast(course.arguments, device):
        loss = course.model(**batch).loss
    loss.backward()
    nn.utils.clip_grad_norm_(course.model.parameters(), course.arguments.max_norm)  # costs what two parts cost
    course.optimizer.step()
    course.optimizer.zero_grad()
    return now(device) - start


def answer(course: Course, batch: dict, tokens: int, device: torch.device) -> float:
    """Its seconds; summaries of so many tokens."""
    course.model.eval()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    start = now(device)
    with torch.inference_mode(), autocast(course.arguments, device):
        if course.model.can_generate():
            course.model.generate(**given, min_new_tokens=tokens, max_new_tokens=tokens)
        else:
            course.model(**given)
    return now(device) - start


def autocast(arguments: TrainArguments, device: torch.device) -> torch.autocast:
    chosen = train.best_precision() if arguments.mixed_precision == "auto" else arguments.mixed_precision
    return torch.autocast(device.type, PRECISION[chosen], enabled=PRECISION[chosen] is not None)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
