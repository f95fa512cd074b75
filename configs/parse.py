"""From a YAML file and a command line to the arguments of a run; whatever is impossible is said before it starts."""

import importlib.util
import math
import sys
from pathlib import Path

import torch
import yaml
from transformers import HfArgumentParser

from configs.arguments import TrainArguments
from models import ModelArguments
from shtopk import TopKPooling
from tasks import DataArguments, check, get_task


class Parser(HfArgumentParser):
    """Every complaint in one line, exit code 2."""

    def error(self, message):
        print(f"train.py: {message}", file=sys.stderr)
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
    path = first.parse_known_args(argv)[0].config
    words = (yaml_words(path, parser) if path else []) + argv
    *arguments, _, unknown = parser.parse_args_into_dataclasses(
        words, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}; see train.py --help")
    problem = impossible(*arguments)
    if problem:
        parser.error(problem)
    return parser, *arguments


def yaml_words(path: str, parser: Parser) -> list[str]:
    """The fields of a YAML file as command-line words, so that one parser checks both."""
    try:
        fields = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        parser.error(f"cannot read the configuration {path}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"the configuration {path} is not valid YAML: {' '.join(str(error).split())}")
    if not isinstance(fields, dict):
        parser.error(f"expected the configuration {path} to hold 'field: value' lines, got {type(fields).__name__}")
    known = {action.dest for action in parser._actions} - {"help", "config"}
    unknown = sorted(str(name) for name in fields if name not in known)
    if unknown:
        parser.error(f"unknown fields in {path}: {', '.join(unknown)}; see train.py --help")
    return [f"--{name}={_word(value)}" for name, value in fields.items() if value is not None]


def _word(value) -> str:
    """A mapping, k_by_layer, as the command line has it."""
    return ",".join(f"{key}:{its}" for key, its in value.items()) if isinstance(value, dict) else str(value)


POSITIVE = (
    *("epochs", "batch_size", "eval_batch_size", "gradient_accumulation_steps", "eval_every", "patience"),
    *("save_every", "total_limit"),
    *("learning_rate", "decoder_learning_rate", "head_learning_rate", "scorer_learning_rate"),
    *("max_grad_norm", "scorer_max_grad_norm", "num_beams"),
)
TRACKERS = ("tensorboard", "trackio", "wandb")
OF_SUMMARIES = ("decoder", "copy_head", "num_beams", "no_repeat_ngram_size", "min_new_tokens", "length_penalty")
NOT_NEGATIVE = (
    *("weight_decay", "show", "profile", "protect_first", "freeze_layers", "seed"),
    *("no_repeat_ngram_size", "min_new_tokens"),
)


def impossible(data: DataArguments, model: ModelArguments, train: TrainArguments) -> str | None:
    """What no run can have, in one line; None if all is well."""
    fields = vars(train) | vars(model)
    for name in POSITIVE:
        if fields[name] is not None and not 0 < fields[name] < math.inf:
            return f"expected {name} > 0, got {fields[name]}"
    for name in NOT_NEGATIVE:
        if fields[name] is not None and not 0 <= fields[name] < math.inf:
            return f"expected {name} >= 0, got {fields[name]}"
    if not 0 <= train.warmup <= 1:
        return f"expected warmup in [0, 1], got {train.warmup}"
    for name, value in (("dropout", model.dropout), ("backbone_dropout", model.backbone_dropout or 0.0)):
        if not 0 <= value < 1:
            return f"expected {name} in [0, 1), got {value}"
    if train.mixed_precision == "fp16" and not torch.cuda.is_available():
        return "mixed_precision fp16 needs a GPU; use bf16 or no"
    for name in train.trackers:
        if name not in TRACKERS:
            return f"expected tracker to be none or of {', '.join(TRACKERS)}; got {name!r}"
        if importlib.util.find_spec(name) is None:
            return f"the tracker {name} needs the package {name}; install it or leave the tracker out"
    folder = Path(train.output_dir)
    if folder.exists() and not folder.is_dir():
        return f"output_dir {folder} is a file; choose another one"
    again = train.overwrite_output_dir or train.resume_from_checkpoint
    if folder.exists() and any(folder.iterdir()) and not again:
        return (
            f"output_dir {folder} is not empty; choose another one, go on with --resume_from_checkpoint latest, or "
            f"start anew with --overwrite_output_dir true"
        )
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
