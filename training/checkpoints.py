"""Checkpoints on disk: written aside and renamed, so that one that has its name is whole.

A manifest in each tells the size and the SHA-256 of every file, so that what was damaged later is found out as well.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

MANIFEST = "manifest.json"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
OLD = "partial_old_"  # before the name of one that is being replaced
NAME = re.compile(r"update_(0|[1-9][0-9]*)")
OF_TRAINING = {MANIFEST, OPTIMIZER, STATE}  # what a checkpoint has besides the model


class CheckpointError(Exception):
    """One line: what could not be written or read, and what to do."""


class Checkpoints:
    """The checkpoints of a run, folders update_N. Only the main process writes.

    Args:
        folder: that they are in; need not exist. What else lies there is left alone.
        total_limit: how many of the newest are kept, besides those that must be kept.
    """

    def __init__(self, folder: Path, total_limit: int):
        self.folder, self.total_limit = folder, total_limit

    def path(self, update: int) -> Path:
        return self.folder / f"update_{update}"

    def updates(self) -> list[int]:
        """Of which updates there are checkpoints, rising; whether they are undamaged `verify` tells."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(path.name[7:]) for path in there if NAME.fullmatch(path.name) and path.is_dir())

    def find(self, wanted: str | None, overwrite: bool = False) -> Path | None:
        """The checkpoint that a run is to go on from.

        Args:
            wanted: "latest", a folder, or None.
            overwrite: damaged ones may be lost.

        Raises:
            CheckpointError: the folder is no whole checkpoint, or none of those that there are is one.
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
        if found is None:
            print(f"train.py: no checkpoint in {self.folder} yet, starting from the beginning", file=sys.stderr)
        return found

    def latest(self) -> Path | None:
        """The newest that is undamaged; says which it passed over. None: there is none."""
        for update in reversed(self.updates()):
            try:
                verify(self.path(update))
            except CheckpointError as error:
                print(f"train.py: {error}; looking for an older one", file=sys.stderr)
                continue
            return self.path(update)
        return None

    def start(self, source: Path | None, overwrite: bool = False) -> None:
        """Make ready for a run that goes on from a checkpoint, or from none: then those of an earlier run are removed.

        Args:
            source: that it goes on from. Where it lies elsewhere, those that it needs are brought along.
            overwrite: later ones may be removed.

        Raises:
            CheckpointError: there are later ones, or another run's.
        """
        here = source is not None and source.parent.resolve() == self.folder.resolve()
        update = int(source.name[7:]) if source is not None else 0
        later = [other for other in self.updates() if other > update or not here]
        if later and source is not None and not overwrite:
            raise CheckpointError(
                f"{self.folder} has other checkpoints, up to {self.path(later[-1])}; choose another output_dir, go on "
                f"with --resume latest, or add --overwrite true to lose them"
            )
        for other in later:
            shutil.rmtree(self.path(other))
        if source is not None and not here:
            for other in needs(source):
                brought = source.with_name(f"update_{other}")
                self.write(other, lambda folder: shutil.copytree(brought, folder, dirs_exist_ok=True))  # noqa: B023

    def write(self, update: int, fill: Callable[[Path], None], keep: Collection[int] = ()) -> None:
        """Write the checkpoint of an update, then remove the oldest.

        Args:
            update: after which it is.
            fill: writes its files into the folder that it is given.
            keep: updates whose checkpoints it needs; they stay as long as it does.

        Raises:
            CheckpointError: it could not be written, for want of space perhaps; those before are as they were.
        """
        aside = self.folder / f"partial_{update}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            fill(aside)
            manifest = {"needs": sorted({*keep} - {0, update}), "files": describe(aside)}
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
        """Remove what is neither among the newest nor needed by one of these, and what a killed run left behind."""
        stay = set(self.updates()[-self.total_limit :])
        for update in sorted(stay):
            with suppress(CheckpointError):  # a damaged one needs nothing
                stay.update(needs(self.path(update)))
        for update in self.updates():
            if update not in stay:
                shutil.rmtree(self.path(update), ignore_errors=True)
        for leftover in self.folder.glob("partial_*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _recover(self) -> None:
        """Give back its name to one that was being replaced when the run was killed."""
        for old in self.folder.glob(f"{OLD}*"):
            if not old.with_name(old.name.removeprefix(OLD)).exists():
                old.rename(old.with_name(old.name.removeprefix(OLD)))


def verify(folder: Path) -> None:
    """Raise CheckpointError where a checkpoint, or one that it needs, is not what its manifest says."""
    _verify(folder)
    for update in needs(folder):
        try:
            _verify(folder.with_name(f"update_{update}"))
        except CheckpointError as error:
            raise CheckpointError(f"{folder} needs the best checkpoint so far, but {error}") from None


def _verify(folder: Path) -> None:
    expected = read_manifest(folder)["files"]
    for name, its in expected.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
        if _describe(path) != its:
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is damaged")


def needs(folder: Path) -> list[int]:
    """Updates whose checkpoints one needs beside it: that of the best so far."""
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


def describe(folder: Path) -> dict[str, dict]:
    """Size and hash of every file but the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _describe(path) for path in files}


def _describe(path: Path) -> dict:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _put_in_place(aside: Path, path: Path) -> None:
    """Rename; what has the name already is damaged, or from an update that was saved before."""
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
    """Have the system write it to the disk now; a name must not outlive a power cut that its content does not."""
    if os.name != "posix" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: Exception) -> str:
    """In a line, why something could not be written or read."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({Path(error.filename).name})" if error.filename else error.strerror
    return " ".join(str(error).split())


def publish(checkpoint: Path, folder: Path) -> None:
    """Copy the model of a checkpoint into a folder, each file whole or not at all."""
    for source in sorted(checkpoint.iterdir()):
        if source.is_file() and source.name not in OF_TRAINING:
            aside = folder / f".{source.name}.partial"
            shutil.copyfile(source, aside)
            aside.replace(folder / source.name)
