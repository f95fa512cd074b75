"""From a YAML file and a command line to the arguments of a run; whatever is impossible is said before it starts."""

import importlib.util
import math
import os
import re
import sys
from pathlib import Path

import torch
from transformers import HfArgumentParser

from shtopk import TopKPooling
from shtopk.models import ModelArguments
from shtopk.tasks import DataArguments, check, get_task
from shtopk.training.aliases import also, with_our_names
from shtopk.training.arguments import TrainArguments
from shtopk.training.yaml_fields import yaml_words


class Parser(HfArgumentParser):
    """Every complaint in one line, exit code 2; lists may be empty."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for action in self._actions:
            action.nargs = "*" if action.nargs == "+" else action.nargs
            action.help = f"{action.help}{also(action.dest)}"

    def error(self, message):
        line = " ".join(message.split())
        line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
        if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
            print(f"train.py: {''.join(map(_printable, line))}", file=sys.stderr)
        sys.exit(2)


def parse(argv: list[str], description: str | None = None):
    """(parser, DataArguments, ModelArguments, TrainArguments), from the words of train.py's command line.

    The defaults, then the YAML file that --config names, then the command line. What cannot be is said in one line,
    with exit code 2.

    Args:
        argv: the words.
        description: what `--help` shows first.
    """
    parser = Parser((DataArguments, ModelArguments, TrainArguments), description=description, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file of fields")
    first = Parser((), add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    path = first.parse_known_args(_checked(argv, parser))[0].config
    try:
        words = ([] if path is None else _checked(yaml_words(path, parser), parser)) + with_our_names(argv)
    except ValueError as error:
        parser.error(str(error))
    *arguments, _, unknown = parser.parse_args_into_dataclasses(
        words, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}; see train.py --help")
    problem = impossible(*arguments)
    if problem:
        parser.error(problem)
    return parser, *arguments


def _checked(words: list[str], parser: Parser) -> list[str]:
    """The words, if they are such that paths and argparse can do with them."""
    for word in words:
        if re.search("[\0\ud800-\udfff]", word):
            parser.error(f"expected valid Unicode without NUL, got {word}; rename what it names")
        if re.fullmatch("--[^=]+=--", word):  # of which argparse makes an empty list
            parser.error(f"expected something as {word[2:-3]}, got '--'; leave it out for the default")
    return words


def _printable(sign: str) -> str:
    """A character, or how Python writes it: a terminal obeys some, and some cannot be written at all."""
    return sign if sign.isprintable() else sign.encode("unicode_escape").decode()


LONGEST = 1000  # characters of a complaint
LARGEST = 2**31 - 1  # of any number: more is a slip, and overflows somewhere below
MOST_PROTECTED = 1000
POSITIVE = (
    *("epochs", "batch_size", "eval_batch_size", "accumulation", "eval_every", "patience"),
    *("save_every", "total_limit"),
    *("learning_rate", "decoder_learning_rate", "head_learning_rate", "scorer_learning_rate"),
    *("max_norm", "scorer_max_norm", "num_beams"),
)
TRACKERS = ("tensorboard", "trackio", "wandb")
OF_SUMMARIES = ("decoder", "copy_head", "num_beams", "no_repeat_ngram_size", "min_new_tokens", "length_penalty")
NOT_NEGATIVE = (
    *("weight_decay", "show", "profile", "protect_first", "freeze_layers", "seed"),
    *("no_repeat_ngram_size", "min_new_tokens"),
)


def impossible(data: DataArguments, model: ModelArguments, train: TrainArguments) -> str | None:
    """What no run can have, in one line; None if all is well."""
    fields = vars(train) | vars(model) | vars(data)
    for name, value in fields.items():
        if isinstance(value, str) and not value.strip():
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
    if model.protect_first > MOST_PROTECTED:
        return f"expected protect_first <= {MOST_PROTECTED}, got {model.protect_first}"
    if not 0 <= train.warmup <= 1:
        return f"expected warmup in [0, 1], got {train.warmup}"
    for name, value in (
        ("classifier_dropout", model.classifier_dropout),
        ("backbone_dropout", model.backbone_dropout or 0.0),
    ):
        if not 0 <= value < 1:
            return f"expected {name} in [0, 1), got {value}"
    if train.mixed_precision == "fp16" and not torch.cuda.is_available():
        return "mixed_precision fp16 needs a GPU; use bf16 or no"
    for name in train.trackers:
        if name not in TRACKERS:
            return f"expected tracker to be none or of {', '.join(TRACKERS)}; got {name!r}"
        if importlib.util.find_spec(name) is None:
            return f"the tracker {name} needs the package {name}; install it or leave the tracker out"
    again = train.overwrite or train.resume
    try:
        problem = _unusable(Path(train.output_dir), bool(again))
    except OSError as error:
        problem = f"cannot use output_dir {train.output_dir}: {error.strerror}; choose another one"
    if problem:
        return problem
    try:
        TopKPooling(1, **model.pooling())
        _ = model.layers_and_counts
        check(data)
        task = get_task(data)
    except ValueError as error:
        return str(error)
    if train.metric is not None and train.metric not in task.selectors:
        return f"expected metric to be one of {', '.join(task.selectors)}; got {train.metric!r}"
    if (model.min_new_tokens or 0) > data.max_summary_tokens:
        return f"expected min_new_tokens <= max_summary_tokens, {data.max_summary_tokens}; got {model.min_new_tokens}"
    for name in OF_SUMMARIES:
        if task.target != "summary" and getattr(model, name):
            return f"{name} is for summaries, but the task {task.name} has classes; leave it out"
    return None


def _unusable(folder: Path, again: bool) -> str | None:
    """Why a run cannot write into a folder, which need not exist; None if it can. again: it may have been used."""
    there = next(place for place in (folder, *folder.parents, Path(".")) if _exists(place))
    if not there.is_dir():
        what = "is a file" if there.is_file() else "is no folder"
        where = (
            f"output_dir {folder} {what}" if there == folder else f"output_dir {folder} lies in {there}, which {what}"
        )
        return f"{where}; choose another one"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"cannot write to {there}, where output_dir {folder} is to be; choose another one"
    if there == folder and any(folder.iterdir()) and not again:
        return (
            f"output_dir {folder} is not empty; choose another one, go on with --resume latest, or "
            f"start anew with --overwrite true"
        )
    return None


def _exists(place: Path) -> bool:
    """Whether there is anything, a link to nowhere too. Raises OSError for what can be no path."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
