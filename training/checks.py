"""Checks of arguments that no run can have, made before anything is read."""

import importlib.util
import math
import os
import re
from pathlib import Path

import torch

from shtopk.budget import checked_range
from shtopk.tasks import check
from shtopk.tasks.registry import possible_tasks
from shtopk.training.answer_checks import problem_of_answers
from shtopk.training.arguments import TRACKERS, Arguments, TrainArguments
from shtopk.training.model_arguments import ModelArguments
from shtopk.training.run_folder import holds_a_run, in_the_way, is_unused

LARGEST = 2**31 - 1  # of any number: more is a slip, and would overflow
POSITIVE = (
    *("epochs", "max_steps", "batch_size", "eval_batch_size", "accumulation", "eval_every", "patience", "save_every"),
    *("learning_rate", "decoder_learning_rate", "head_learning_rate", "scorer_learning_rate", "ddp_timeout"),
    *("max_norm", "scorer_max_norm", "total_limit", "num_beams", "lora_r", "lora_alpha", "lora_learning_rate"),
)
NOT_NEGATIVE = (
    *("weight_decay", "show", "profile", "freeze_layers", "seed", "no_repeat_ngram_size", "min_new_tokens"),
    *("workers", "probe_documents"),
)
MAY_BE_BLANK = ("text_separator", "source_prefix")
MOST_WORKERS = 256
OF_LORA = ("lora_alpha", "lora_dropout", "lora_targets")


def problem_of(arguments: Arguments, writes: bool) -> str | None:
    """What is wrong with these arguments, in one line; None if all is well.

    Args:
        writes: the command writes into the output folder, but for a dry run.
    """
    data, model, training = arguments.data, arguments.model, arguments.training
    fields = vars(training) | vars(model) | vars(data)
    for name, value in fields.items():
        blank = isinstance(value, str) and not value.strip() and name not in MAY_BE_BLANK
        if blank and not (value and name == "label_separator"):
            return f"expected something as {name}, got an empty text; leave it out for the default"
    for name in POSITIVE:
        if fields[name] is not None and not 0 < fields[name] < math.inf:
            return f"expected {name} > 0, got {fields[name]}"
    for name in NOT_NEGATIVE:
        if fields[name] is not None and not 0 <= fields[name] < math.inf:
            return f"expected {name} >= 0, got {fields[name]}"
    for name, value in fields.items():
        if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
            return f"expected {name} to be a number of at most {LARGEST:,}, got {value}"
    if not 0 <= training.warmup <= 1:
        return f"expected warmup in [0, 1], got {training.warmup}"
    for name in ("classifier_dropout", "backbone_dropout", "lora_dropout"):
        if fields[name] is not None and not 0 <= fields[name] < 1:
            return f"expected {name} in [0, 1), got {fields[name]}"
    if training.mixed_precision == "fp16" and not torch.cuda.is_available():
        return "mixed_precision fp16 needs a GPU; use bf16 or no"
    if training.workers > MOST_WORKERS:
        return f"expected workers <= {MOST_WORKERS}, got {training.workers}"
    if problem := _lora_problem(model) or _hub_problem(training):
        return problem
    for name in ("project", "run_name"):
        if fields[name] is not None and not re.fullmatch(r"(?!\.)[^/\\]{1,128}", fields[name]):  # it names a folder
            return f"expected {name} of at most 128 characters, no / and \\ and no dot in front; got {fields[name]!r}"
    for name in training.trackers:
        if name not in TRACKERS:
            return f"expected tracker to be none or of {', '.join(TRACKERS)}; got {name!r}"
        if importlib.util.find_spec(name) is None:
            return f"the tracker {name} needs the package {name}; install it or leave the tracker out"
    output, resumes = Path(training.output_dir), training.resume is not None
    writes = writes and not training.dry_run
    if writes and (problem := _lost(arguments) or unusable(output, training.overwrite, resumes=resumes)):
        return problem
    try:
        model.pooling_options.check(model.share_or_count)
        _ = model.shares_or_counts
        minimum = model.generation_options.get("min_new_tokens") or 0
        if training.range_of_k is not None:
            checked_range(training.range_of_k, model.pooling_options)
        check(data)
        tasks = possible_tasks(data)
    except ValueError as error:
        return str(error)
    limit = "max_completion_tokens" if tasks[0].target == "completion" else "max_summary_tokens"
    if minimum > (most := getattr(data, limit)):
        return f"expected min_new_tokens <= {limit}, {most}; got {minimum}"
    return problem_of_answers(arguments, tasks)


def _lora_problem(model: ModelArguments) -> str | None:
    if model.lora_r is None:
        given = next((name for name in OF_LORA if getattr(model, name)), None)
        return given and f"{given} belongs to LoRA; give its rank too, such as lora_r 8, or leave {given} out"
    if model.freeze_encoder:
        return "freeze_encoder trains nothing of the encoder, and lora_r matrices beside it; leave one of them out"
    if importlib.util.find_spec("peft") is None:
        return "lora_r needs the package peft; run pip install peft"
    return None


def _hub_problem(training: TrainArguments) -> str | None:
    if training.push_to_hub is None:
        alone = "private is for push_to_hub; name a repository there, or leave private out"
        return alone if training.private else None
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(training.push_to_hub)
    except HFValidationError:
        return f"expected push_to_hub to be a repository such as me/topics, got {training.push_to_hub!r}"
    if training.push_to_hub.lower() in ("true", "false", "yes", "no"):  # as `Trainer` has it
        return f"push_to_hub names the repository, such as me/topics, or is left out; got {training.push_to_hub!r}"
    return None


def _lost(arguments: Arguments) -> str | None:
    """Why a run must not replace what lies in its folder; None if it may, or is not to."""
    output = Path(arguments.training.output_dir)
    for name in ("backbone", "decoder") if arguments.training.overwrite and output.is_dir() else ():
        given = getattr(arguments.model, name)
        if given is not None and Path(given).is_dir() and output.samefile(given):
            return f"{name} {given} lies in output_dir, where --overwrite true removes it; choose another output_dir"
    return None


def unusable(folder: Path, again: bool, *, trains: bool = True, resumes: bool = False) -> str | None:
    """Why a command cannot write into a folder; None if it can, or if the folder can be made.

    Args:
        again: the folder may hold files already.
        trains: a training that lies there can be gone on with.
        resumes: the folder may hold a run already.
    """
    try:
        there = next(place for place in (folder, *folder.parents, Path(".")) if _exists(place))
    except OSError as error:
        return f"cannot use output_dir {folder}: {error.strerror}; choose another one"
    if not there.is_dir():
        what = "is a file" if there.is_file() else "is no folder"
        inside = "" if there == folder else f"lies in {there}, which "
        return f"output_dir {folder} {inside}{what}; choose another one"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"cannot write to {there}, where output_dir {folder} is to be; choose another one"
    replaces = again or (resumes and holds_a_run(folder))
    if there == folder and replaces and trains and (name := in_the_way(folder)):
        whose = ", which no record says the run there wrote" if holds_a_run(folder) else ", and no run"
        return f"output_dir {folder} holds {name}{whose}; this run would replace it, so choose another one"
    if there == folder and not again and not is_unused(folder):
        if resumes:
            nothing = "holds other files, and no run to go on with"
            return None if holds_a_run(folder) else f"output_dir {folder} {nothing}; choose another one"
        others = "go on with --resume latest, or start anew with" if trains else "or replace it with"
        return f"output_dir {folder} is not empty; choose another one, {others} --overwrite true"
    return None


def _exists(place: Path) -> bool:
    """Whether anything stands at a path, even a broken link. Raises OSError for an impossible path."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
