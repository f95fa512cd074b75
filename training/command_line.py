"""Read the arguments of a command from a YAML file and a command line, and refuse impossible ones."""

import argparse
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from shtopk.tasks import DataArguments
from shtopk.tasks.files import with_completions_found
from shtopk.tasks.records import READERS
from shtopk.training.aliases import ALIASES, meant, our_names, with_our_names
from shtopk.training.arguments import Arguments, TrainArguments
from shtopk.training.checks import problem_of, unusable
from shtopk.training.class_weights import as_word
from shtopk.training.console import program, refuse, refusing
from shtopk.training.model_arguments import ModelArguments
from shtopk.training.settings import defaults_of


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with the defaults beside the fields, and a description whose lines are kept."""


class Parser(HfArgumentParser):
    """A parser that refuses in one line, takes empty lists, and names the aliases of each field."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, formatter_class=Help, **options)
        for action in self._actions:
            action.nargs = "*" if action.nargs == "+" else action.nargs
            if names := [f"--{theirs}" for theirs, ours in ALIASES.items() if ours == action.dest]:
                action.help = f"{action.help} (also {', '.join(names)})"

    def error(self, message: str) -> NoReturn:
        refuse(message)


def parse(argv: list[str], description: str | None = None, *, writes: bool = True) -> Arguments:
    """Read the arguments of an experiment from a command line.

    The defaults come first, then the YAML file that `--config` names, then the command line: later ones win. Input
    that cannot be used is refused with one line and exit code 2.

    Args:
        argv: the words of the command line, without the program.
        description: what `--help` shows first.
        writes: the output folder must be fit to be written to.
    """
    _, (data, model, training) = read(argv, (DataArguments, ModelArguments, TrainArguments), description)
    with refusing():
        arguments = Arguments(with_completions_found(data), model, training)
        problem = problem_of(arguments, writes)
    if problem:
        refuse(problem)
    return arguments


def read(
    argv: list[str],
    groups: Sequence[type],
    description: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    positional: Callable[[argparse.ArgumentParser], object] | None = None,
) -> tuple[argparse.Namespace, list[Any]]:
    """Read dataclasses of fields from the YAML file that --config names and from a command line, which wins over it.

    Args:
        groups: the dataclasses.
        defaults: {field: a default in place of its own}.
        positional: adds arguments that are no fields to the parser.

    Returns:
        The arguments that are no fields, and an instance of each group.
    """
    parser = Parser(groups, description=description, prog=program())
    parser.add_argument("--config", help="YAML file of fields")
    if positional is not None:
        positional(parser)
    words = [action.metavar or action.dest.upper() for action in parser._actions if not action.option_strings]
    parser.usage = " ".join([program(), *words, "[--field value ...]"])
    with refusing(ValueError):
        path = config_of(_checked(argv))
        words = ([] if path is None else _checked(yaml_words(path, parser))) + with_our_names(argv)
        words = _apart([*_words_of(defaults or {}, parser), *words], parser)
    *found, others, unknown = parser.parse_args_into_dataclasses(
        words, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        refuse(f"unknown arguments: {' '.join(unknown)}; {_advice(unknown, parser, '--')}")
    return others, found


def config_of(argv: list[str]) -> str | None:
    """The YAML file that a command line names with --config; None for none."""
    parser = Parser((), add_help=False)
    parser.add_argument("--config")
    return parser.parse_known_args(argv)[0].config


def of_checkpoint(argv: list[str], group: type[Any], description: str | None) -> tuple[str, DataArguments, Any]:
    """Read a command line that begins with a checkpoint: (checkpoint, where the data is, the command's own fields).

    By default the data is read as in the checkpoint's training. The fields have `output_dir`, `overwrite` and
    `eval_batch_size`; impossible values are refused.
    """

    def positional(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint", help="folder of a model")

    groups = (DataArguments, group)
    others, _ = read(argv, groups, description, positional=positional)
    folder = Path(others.checkpoint)
    with refusing():
        there = folder.is_dir()
    if not there:
        refuse(f"expected a folder with a checkpoint, found none: {folder}")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        refuse(f"expected a checkpoint with a config.json in {folder}, found none")
    with refusing(ValueError):
        defaults = defaults_of(folder, argv)
    _, (data, own) = read(argv, groups, description, positional=positional, defaults=defaults)
    if own.eval_batch_size < 1:
        refuse(f"expected eval_batch_size >= 1, got {own.eval_batch_size}")
    if problem := unusable(Path(own.output_dir), own.overwrite, trains=False):
        refuse(problem)
    return others.checkpoint, data, own


def numbers(text: str, name: str) -> list[str]:
    """The words of a list with commas between, each a number.

    Raises:
        ValueError: a word is no number; the message calls the list by `name`.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", word):
            raise ValueError(f"expected {name} to be numbers with commas between, got {word!r}")
    return words


def _checked(words: list[str]) -> list[str]:
    """The words, if paths and argparse can take them."""
    for word in words:
        if re.search("[\0\ud800-\udfff]", word):
            raise ValueError(f"expected valid Unicode without NUL, got {word}; rename what it names")
        if re.fullmatch("--[^=]+=--", word):  # argparse takes it for an empty list
            raise ValueError(f"expected something as {word[2:-3]}, got '--'; leave it out for the default")
    return words


def yaml_words(path: str, parser: argparse.ArgumentParser) -> list[str]:
    """The fields of a YAML file as words of a command line, so that one parser checks both.

    Raises:
        ValueError: the file cannot be read, or is no mapping of fields.
    """
    fields = _load(path)
    ours = our_names(fields)
    known = {action.dest for action in parser._actions} - {"help", "config"}
    unknown = sorted(str(name) for name, field in ours.items() if field not in known)
    if unknown:
        raise ValueError(f"unknown fields in {path}: {', '.join(unknown)}; {_advice(unknown, parser)}")
    return _words_of({ours[name]: value for name, value in fields.items()}, parser)


def _apart(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The words, with lists such as 0,-1 as several words where a field takes several."""
    several = {f"--{action.dest}" for action in parser._actions if action.nargs == "*"}
    found: list[str] = []
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word.partition("=")[0]
        several_here = option in several and "," in word
        found += filter(None, re.split(r"[=,]\s*", word)) if several_here else [word]
    return found


def _advice(unknown: Sequence[str], parser: argparse.ArgumentParser, dashes: str = "") -> str:
    """What to do about the first of these names that something is known of. Options have dashes in front."""
    fields = {action.dest for action in parser._actions if action.option_strings}
    names = [word[len(dashes) :].partition("=")[0] for word in unknown if word.startswith(dashes)]
    found = next(filter(None, (meant(name, fields, dashes) for name in names)), None)
    if dashes and not unknown[0].startswith(dashes) and unknown[0].lower().endswith(tuple(READERS)):
        trained = any(not action.option_strings for action in parser._actions)  # a checkpoint comes first
        found = f"give documents with --{'test_file' if trained else 'train_file'}"
    help = f"ee {program()} --help"
    return f"s{help}" if found is None else f"{found} S{help}" if found.endswith("?") else found


def _words_of(fields: Mapping[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """Fields of a parser as words of a command line, under our names; None is left out."""
    actions: dict[str, argparse.Action] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, action)
    given = {actions[name]: value for name, value in fields.items() if value is not None}
    return [word for action, value in given.items() for word in _words(action, value)]


def _load(path: str) -> dict:
    """The fields of a YAML file.

    Raises:
        ValueError: it cannot be read, is no mapping of fields, or has one field twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        fields = yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"cannot read the configuration {path}: {error.strerror}") from None
    # What is no date or number, though its tag or its looks promise one, is a ValueError or a TypeError to PyYAML.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"the configuration {path} is not valid YAML: {error}") from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        got = type(fields).__name__
        raise ValueError(f"expected the configuration {path} to hold 'field: value' lines, got {got}")
    names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ValueError(f"expected every field once in {path}, got several times: {', '.join(twice)}; leave one each")
    return fields


def _words(action: argparse.Action, value: Any) -> list[str]:
    """The words of one field. A list becomes several values if the field takes several."""
    if action.nargs != "*" or not isinstance(value, list):
        return [f"--{action.dest}={_word(action, value)}"]
    words = [_word(action, one) for one in value]
    if option := next((word for word in words if word.startswith("--")), None):
        raise ValueError(f"expected values as {action.dest}, got {option}")
    return [f"--{action.dest}", *words]


def _word(action: argparse.Action, value: Any) -> str:
    """One value as a word of the command line. Raises ValueError for a text that YAML takes for something else."""
    if value is False and "no" in (action.choices or ()):
        return "no"  # which YAML takes for false
    if action.dest == "k_by_layer" and isinstance(value, dict):
        return ",".join(f"{_text(key)}:{_text(k)}" for key, k in value.items())
    if action.dest == "class_weights" and isinstance(value, dict):
        return as_word(value)
    if action.dest == "generation" and isinstance(value, dict):
        return json.dumps(value, default=str)
    if action.dest == "text_column" and isinstance(value, list):
        names = [_word(action, name) for name in value]
        if odd := next((name for name in names if "," in name), None):
            raise ValueError(f"expected names of columns without commas as text_column, got {odd!r}")
        return ",".join(names)
    if action.type is str and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        kind = type(value).__name__
        raise ValueError(f"expected a text as {action.dest}, got {_text(value)} ({kind}) in YAML; put it in quotes")
    return _text(value)


def _text(value: Any) -> str:
    """A single value in full; of a list or mapping only the beginning, as it may hold itself."""
    return str(value) if isinstance(value, str | int | float) else reprlib.repr(value)
