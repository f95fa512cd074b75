"""The best model of a run on the Hugging Face hub."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

from shtopk.training.arguments import TrainArguments
from shtopk.training.checkpoints import CheckpointError, reason
from shtopk.training.run_folder import ARGUMENTS, CODE, MODEL, TOKENIZER
from shtopk.training.settings import reading, settings_of

# What is uploaded of a run's folder: the model with its code, its card, and the figures. Not what started it on this
# machine, of which only that goes along which says how to read data; nor the answers, which hold texts.
OF_OTHER_TOKENIZERS = ("tokenizer*", "vocab*", "*.model")
UPLOADED = (*MODEL, *TOKENIZER, *OF_OTHER_TOKENIZERS, *CODE, "README.md", "training.png")


def open_repository(training: TrainArguments) -> None:
    """Make the repository, if it is not there: what would keep a run from uploading shows before it trains.

    Raises:
        CheckpointError: it cannot be made, perhaps because nobody is logged in.
    """
    name = training.push_to_hub
    _asking(
        lambda hub: hub.create_repo(name, private=training.private or None, exist_ok=True),
        f"cannot use the repository {name} on the hub; log in with `hf auth login`, or name another",
    )


def upload(training: TrainArguments, folder: Path) -> str:
    """Upload a run's best model with its card, and how its training read data. Returns the address.

    Raises:
        CheckpointError: it failed; the run's folder is complete all the same.
    """
    name, message = training.push_to_hub, "Upload of shtopk"
    how_read = yaml.safe_dump(reading(settings_of(folder)), sort_keys=False, allow_unicode=True)

    def both(hub: Any) -> Any:
        hub.upload_file(repo_id=name, path_in_repo=ARGUMENTS, path_or_fileobj=how_read.encode(),
                        commit_message=message)  # fmt: skip
        return hub.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message,
            allow_patterns=list(UPLOADED), ignore_patterns=["checkpoints/*", "logs/*"],
        )  # fmt: skip

    later = f"`{shlex.join(['shtopk', 'push', str(folder), name, *['--private'] * training.private])}` does it later"
    commit = _asking(both, f"the run is complete in {folder}, but could not be uploaded; {later}")
    return str(commit.repo_url)


def _asking(request: Callable[[Any], Any], otherwise: str) -> Any:
    """What the hub answers to a request. If that fails, a `CheckpointError` says what otherwise, and why."""
    try:
        return request(huggingface_hub.HfApi())
    except Exception as error:  # which kinds there are differs from version to version of the client
        raise CheckpointError(f"{otherwise} ({reason(error)[:200]})") from error
