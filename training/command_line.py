"""From a YAML file and a command line to the arguments of an experiment; impossible ones are refused."""

import re
from typing import NoReturn

from transformers import HfArgumentParser

from shtopk.models import ModelArguments
from shtopk.tasks import DataArguments
from shtopk.training.aliases import also, with_our_names
from shtopk.training.arguments import Arguments, TrainArguments
from shtopk.training.checks import problem_of
from shtopk.training.console import PROGRAM, refuse, refusing
from shtopk.training.yaml_fields import yaml_words


class Parser(HfArgumentParser):
    """Refuses in one line, lets lists be empty, and names the aliases of each field."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, **options)
        for action in self._actions:
            action.nargs = "*" if action.nargs == "+" else action.nargs
            action.help = f"{action.help}{also(action.dest)}"

    def error(self, message: str) -> NoReturn:
        refuse(message)


def parse(argv: list[str], description: str | None = None, *, writes: bool = True) -> Arguments:
    """The arguments: the defaults, then the YAML file that --config names, then the command line.

    Args:
        argv: the words of the command line.
        description: what `--help` shows first.
        writes: the output folder is to be written into.
    """
    parser = Parser((DataArguments, ModelArguments, TrainArguments), description=description)
    parser.add_argument("--config", help="YAML file of fields")
    first = Parser((), add_help=False)
    first.add_argument("--config")
    with refusing(ValueError):
        path = first.parse_known_args(_checked(argv))[0].config
        words = ([] if path is None else _checked(yaml_words(path, parser))) + with_our_names(argv)
    data, model, training, _, unknown = parser.parse_args_into_dataclasses(
        words, look_for_args_file=False, return_remaining_strings=True
    )
    arguments = Arguments(data, model, training)
    if unknown:
        refuse(f"unknown arguments: {' '.join(unknown)}; see {PROGRAM} --help")
    if problem := problem_of(arguments, writes):
        refuse(problem)
    return arguments


def _checked(words: list[str]) -> list[str]:
    """The words, if paths and argparse can take them."""
    for word in words:
        if re.search("[\0\ud800-\udfff]", word):
            raise ValueError(f"expected valid Unicode without NUL, got {word}; rename what it names")
        if re.fullmatch("--[^=]+=--", word):  # argparse takes it for an empty list
            raise ValueError(f"expected something as {word[2:-3]}, got '--'; leave it out for the default")
    return words
