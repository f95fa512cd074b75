"""How a checkpoint's training read its data: the defaults for commands that read more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from shtopk.tasks.arguments import FILE_FIELDS, HUB_FIELDS, PROMPT, DataArguments, names_in
from shtopk.tasks.columns import PAIR, TEXT, Columns
from shtopk.tasks.pairs import PAIRS
from shtopk.tasks.recall import RECALL
from shtopk.training.aliases import with_our_names
from shtopk.training.run_folder import ARGUMENTS

SOURCES = ("task", *FILE_FIELDS, *HUB_FIELDS, "rfc_folder")  # the fields that say where data comes from
LIMITS = ("max_train_samples", "max_eval_samples")
TAKEN = {one.name for one in fields(DataArguments)} - set(LIMITS) | {"mixed_precision"}


def settings_of(checkpoint: str | Path) -> dict[str, Any]:
    """The fields of `DataArguments` in a checkpoint's arguments.yaml, limits aside, and mixed_precision; {} without
    the file.

    Raises:
        ValueError: the file is not what `train.py` wrote.
    """
    path = Path(checkpoint) / ARGUMENTS
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected {path} to hold 'field: value' lines, got {type(found).__name__}")
    return {name: value for name, value in found.items() if name in TAKEN}


def reading(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say how data is read, without those that say where it comes from."""
    of_task = {PAIRS.name: {"text_pair_column": PAIR}, RECALL.name: {"prompt_column": PROMPT}}
    usual = of_task.get(str(settings.get("task")), {})
    own = (*SOURCES, "needle_tokens")  # of documents that are made
    return usual | {name: value for name, value in settings.items() if name not in own and value is not None}


def texts_of(checkpoint: str | Path) -> tuple[Columns, int | None]:
    """The columns of texts that a checkpoint's training read, and to how many tokens it cut them; None: not at all.

    Without arguments.yaml the columns are the usual ones.

    Raises:
        ValueError: the file is not what `train.py` wrote.
    """
    settings = reading(settings_of(checkpoint))
    text = settings.get("prompt_column") or settings.get("text_column") or TEXT
    separator = settings.get("text_separator", Columns.separator)
    pair, most = settings.get("text_pair_column") or None, settings.get("max_tokens")
    if not all(isinstance(one, str) for one in (text, separator, pair or "")) or not isinstance(most, int | None):
        raise ValueError(f"expected names of columns and a number of max_tokens in {checkpoint}/arguments.yaml")
    return Columns(names_in(text), separator, pair), most


def defaults_of(checkpoint: str | Path, argv: list[str]) -> dict[str, Any]:
    """The defaults of a command line, from a checkpoint's arguments.yaml.

    If the command line names data of its own, only how to read it is taken over.

    Raises:
        ValueError: neither the command line nor the checkpoint names data that is there.
    """
    settings = settings_of(checkpoint)
    given = {word[2:].partition("=")[0].replace("-", "_") for word in with_our_names(argv) if word.startswith("--")}
    if given & {*SOURCES, "config"}:
        return reading(settings)
    cure = "name data with --test_file, --dataset_name or --task"
    if not set(SOURCES) & settings.keys():
        raise ValueError(f"the checkpoint {checkpoint} does not say what it was trained on; {cure}")
    for name in FILE_FIELDS:
        if name in settings and not Path(str(settings[name])).exists():
            raise ValueError(f"the {name} of the training, {settings[name]}, is not to be found from here; {cure}")
    return settings
