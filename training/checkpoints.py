"""Checkpoints on disk. Each is written under another name and renamed when it is whole, so a folder update_N is
complete.

A manifest in each holds the size and the SHA-256 of every file, so that later damage is found.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from shtopk.training.console import tell
from shtopk.training.errors import CheckpointError
from shtopk.training.run_folder import ARGUMENTS

MANIFEST = "manifest.json"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
APART = "trained.safetensors"  # of LoRA: what is trained, as the model beside it is merged
OLD = "partial_old_"  # prefix of a checkpoint that is being replaced
NAME = re.compile(r"update_(0|[1-9][0-9]*)")
LEFTOVER = re.compile(r"partial_(old_update_)?[0-9]+")
OF_TRAINING = {MANIFEST, OPTIMIZER, STATE, APART, ARGUMENTS}  # files of a checkpoint beside the model


class Checkpoints:
    """The checkpoints of a run: folders update_N inside one folder. Only the main process writes.

    Args:
        folder: it may hold other files, too.
        total_limit: how many of the newest checkpoints to keep, besides those that these need.
    """

    def __init__(self, folder: Path, total_limit: int):
        self.folder, self.total_limit = folder, total_limit

    def path(self, update: int) -> Path:
        return self.folder / f"update_{update}"

    def updates(self) -> list[int]:
        """The numbers of the updates with a checkpoint, smallest first; damaged ones too (`verify` finds out)."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(path.name[7:]) for path in paths if NAME.fullmatch(path.name) and path.is_dir())

    def holds(self, source: Path | None) -> bool:
        """Whether a checkpoint is one of these."""
        return source is not None and source.parent.resolve() == self.folder.resolve()

    def find(self, wanted: str | None, overwrite: bool = False) -> Path | None:
        """The checkpoint to go on from; None: start from the beginning.

        Args:
            wanted: "latest", or a checkpoint's folder; None: start from the beginning.
            overwrite: start from the beginning even if all checkpoints are damaged.

        Raises:
            CheckpointError: the folder is no whole checkpoint, or all are damaged and must not be overwritten.
        """
        if wanted is None:
            return None
        if wanted != "latest":
            source = Path(wanted).resolve()
            if not NAME.fullmatch(source.name):
                raise CheckpointError(f"expected a folder checkpoints/update_N to go on from, got {wanted}")
            verify(source)
            return source
        self._recover()
        found = self.latest()
        if found is None and self.updates() and not overwrite:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole; to lose them and start anew add --overwrite true"
            )
        return found

    def latest(self) -> Path | None:
        """The newest checkpoint that is not damaged, or None. A line on stderr names each one that is skipped."""
        for update in reversed(self.updates()):
            try:
                verify(self.path(update))
            except CheckpointError as error:
                tell(f"{error}; looking for an older one")
                continue
            return self.path(update)
        return None

    def start(self, source: Path | None, overwrite: bool = False) -> None:
        """Prepare the folder for a run, and remove checkpoints that are not part of it.

        Args:
            source: the checkpoint to go on from, copied here if it lies elsewhere; None: start from the beginning.
            overwrite: later checkpoints, and those of another run, may be removed.

        Raises:
            CheckpointError: there are such checkpoints, and they must not be overwritten.
        """
        here = self.holds(source)
        update = int(source.name[7:]) if source is not None else 0
        later = [other for other in self.updates() if other > update or not here]
        if later and source is not None and not overwrite:
            raise CheckpointError(
                f"{self.folder} has other checkpoints, up to {self.path(later[-1])}; choose another output_dir, go on "
                f"with --resume latest, or add --overwrite true to lose them"
            )
        for other in later:
            shutil.rmtree(self.path(other))
        if source is not None and not here:  # it may be the best one so far itself
            for other in (*needs(source), update):
                needed = source.with_name(f"update_{other}")
                self.write(other, partial(shutil.copytree, needed, dirs_exist_ok=True), keep=needs(needed))

    def write(self, update: int, fill: Callable[[Path], None], keep: Collection[int] = ()) -> None:
        """Write the checkpoint of an update, then remove the oldest ones.

        Args:
            update: its number.
            fill: writes the files into a folder.
            keep: updates whose checkpoints this one needs; they stay as long as it does.

        Raises:
            CheckpointError: writing failed, perhaps because the disk is full; earlier checkpoints are untouched.
        """
        aside = self.folder / f"partial_{update}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            fill(aside)
            manifest = {"needs": sorted({*keep} - {0, update}), "files": sizes_and_hashes(aside)}
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            for file in aside.rglob("*"):
                _flush(file)
            _put_in_place(aside, self.path(update))
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            before = self.updates()
            last = f"the last whole one is {self.path(before[-1])}" if before else "there is none before it"
            raise CheckpointError(
                f"cannot write the checkpoint of update {update}: {reason(error)}; {last}; make room, then go on with "
                f"--resume latest"
            ) from error
        self._rotate()

    def _rotate(self) -> None:
        """Keep the newest checkpoints and those that they need.

        Remove all others, and what a killed run left behind.
        """
        stay = set(self.updates()[-self.total_limit :])
        for update in sorted(stay):
            with suppress(CheckpointError):  # damaged: needs nothing
                stay.update(needs(self.path(update)))
        for update in self.updates():
            if update not in stay:
                shutil.rmtree(self.path(update), ignore_errors=True)
        for leftover in self.folder.iterdir():
            if LEFTOVER.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)

    def _recover(self) -> None:
        """Rename a checkpoint back if a kill came while it was being replaced."""
        for old in self.folder.glob(f"{OLD}*"):
            if not old.with_name(old.name.removeprefix(OLD)).exists():
                old.rename(old.with_name(old.name.removeprefix(OLD)))


def verify(folder: Path) -> None:
    """Raise CheckpointError if a checkpoint, or one that it needs, differs from its manifest."""
    _verify(folder)
    for update in needs(folder):
        try:
            _verify(folder.with_name(f"update_{update}"))
        except CheckpointError as error:
            raise CheckpointError(f"{folder} needs the best checkpoint so far, but {error}") from None


def _verify(folder: Path) -> None:
    for name, size_and_hash in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
        if _size_and_hash(path) != size_and_hash:
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is damaged")


def needs(folder: Path) -> list[int]:
    """The updates whose checkpoints must stay beside this one: that of the best so far."""
    return read_manifest(folder)["needs"]


def read_manifest(folder: Path) -> dict:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: {reason(error)}") from None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.keys() != {"needs", "files"}:
        raise CheckpointError(f"{folder} is no whole checkpoint: its {MANIFEST} is damaged")
    return manifest


def sizes_and_hashes(folder: Path) -> dict[str, dict]:
    """The size and the hash of every file, the manifest aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _size_and_hash(path) for path in files}


def _size_and_hash(path: Path) -> dict:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _put_in_place(aside: Path, path: Path) -> None:
    """Rename a new checkpoint into place. It replaces one of that name, which is damaged or was saved before."""
    old = path.with_name(f"{OLD}{path.name}")
    _flush(aside)
    if path.exists():
        path.rename(old)
    try:
        aside.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Write a file to the disk now: after a power cut there must be no name without its content."""
    if os.name != "posix" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """Why something could not be written or read, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({Path(error.filename).name})" if error.filename else error.strerror
    return " ".join(str(error).split())


def publish(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint's model into a folder, each file whole or not at all."""
    for name in names_of_model(checkpoint):
        aside = folder / f".{name}.partial"
        shutil.copyfile(checkpoint / name, aside)
        aside.replace(folder / name)


def names_of_model(checkpoint: Path) -> list[str]:
    """The names of the files that make up a checkpoint's model."""
    return sorted(path.name for path in checkpoint.iterdir() if path.is_file() and path.name not in OF_TRAINING)
