"""The best model of a run on the Hugging Face hub."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

from shtopk.models.model_card import elsewhere, is_local
from shtopk.tasks.arguments import FILE_FIELDS
from shtopk.training.aliases import ALIASES
from shtopk.training.checkpoints import CheckpointError, reason
from shtopk.training.run_folder import ARGUMENTS, CARD, CODE, CONFIG, FINISHED, MODEL, TOKENIZER
from shtopk.training.settings import reading, settings_of

# What is uploaded of a run's folder as it is: the model with its code, and the picture of its training. Not what
# started it on this machine, of which only that goes along which says how to read data; nor answers, which hold texts.
OF_OTHER_TOKENIZERS = ("tokenizer*", "vocab*", "*.model")
PATHS = {*FILE_FIELDS, "rfc_folder", "config", "output_dir", "resume"}  # fields that name files and folders
PERHAPS_PATHS = {"backbone", "decoder", "dataset_name"}  # or repositories on the hub
MESSAGE = "Upload of shtopk"
UPLOADED = (*MODEL, *TOKENIZER, *OF_OTHER_TOKENIZERS, *CODE, "training.png")


def open_repository(name: str, *, private: bool, otherwise: str) -> None:
    """Make the repository, if it is not there: what would keep a run from uploading shows before it trains.

    Args:
        name: such as me/topics, or topics for one of whoever is logged in.
        otherwise: what else whoever cannot log in may do, for the message.

    Raises:
        CheckpointError: it cannot be made or written to, perhaps because nobody is logged in.
    """
    failed = f"cannot use the repository {name} on the hub; log in with `hf auth login`, or {otherwise}"
    owned = _asking(lambda hub: _make(hub, name, private), failed)
    _asking(lambda hub: hub.auth_check(owned, write=True), failed)  # one of somebody else can be made "again"


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Upload a run's best model with its card, and how its training read data. Returns the address.

    Raises:
        CheckpointError: it failed; the run's folder is complete all the same.
    """
    later = f"`{shlex.join(['shtopk', 'push', str(folder), name, *['--private'] * private])}` does it later"
    failed = f"the run is complete in {folder}, but could not be uploaded; {later}"
    how_read = yaml.safe_dump(reading(settings_of(folder)), sort_keys=False, allow_unicode=True)
    owned = _asking(lambda hub: _make(hub, name, private), failed)
    written = {ARGUMENTS: how_read, CARD: card_for(owned, folder), CONFIG: config_for(folder)}

    def all_of_it(hub: Any) -> Any:
        for path, text in written.items():
            hub.upload_file(repo_id=owned, path_in_repo=path, path_or_fileobj=text.encode(), commit_message=MESSAGE)
        return hub.upload_folder(
            repo_id=owned, folder_path=folder, commit_message=MESSAGE,
            allow_patterns=list(UPLOADED), ignore_patterns=["checkpoints/*", "logs/*", CONFIG],
        )  # fmt: skip

    return str(_asking(all_of_it, failed).repo_url)


def _make(hub: Any, name: str, private: bool) -> str:
    """Make a repository, if it is not there. Returns its name with its owner's."""
    return hub.create_repo(name, private=private or None, exist_ok=True).repo_id


def card_for(name: str, folder: Path) -> str:
    """The card of a run, as it stands on the hub: it loads the model from there, and tells no path of this machine."""
    card, results = (folder / CARD).read_text(encoding="utf-8"), json.loads((folder / FINISHED).read_text("utf-8"))
    here = Path(results["arguments"]["output_dir"]).as_posix()
    card = card.replace(f'"{here}"', f'"{name}"').replace(f"{elsewhere(here)}\n\n", "")
    return card.replace(results["command"], without_folders(results["command"]))


def config_for(folder: Path) -> str:
    """The configuration of a run's model, without the folders of this machine that its parts were loaded from."""

    def told(fields: dict[str, Any]) -> dict[str, Any]:
        name = fields.get("_name_or_path")
        if isinstance(name, str) and is_local(name):
            del fields["_name_or_path"]
        return fields

    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"), object_hook=told)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def without_folders(command: str) -> str:
    """A command line whose files and folders stand there by their names alone.

    Example:
        >>> without_folders("shtopk train --train_file=clients/acme/mine.csv --backbone org/bert --k 8")
        'shtopk train --train_file=mine.csv --backbone org/bert --k 8'
    """
    words, field = shlex.split(command), ""
    for i, word in enumerate(words):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if option:
            field = option.removeprefix("--").replace("-", "_")
            field = ALIASES.get(field, field)
        if value and (field in PATHS or (field in PERHAPS_PATHS and is_local(value))):
            words[i] = f"{option}{equals}{Path(value).name}"
    return shlex.join(words)


def _asking(request: Callable[[Any], Any], otherwise: str) -> Any:
    """What the hub answers to a request. If that fails, a `CheckpointError` says what otherwise, and why."""
    try:
        return request(huggingface_hub.HfApi())
    except Exception as error:  # which kinds there are differs from version to version of the client
        raise CheckpointError(f"{otherwise} ({reason(error)[:200]})") from error
