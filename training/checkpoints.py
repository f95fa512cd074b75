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
from pathlib import Path

from safetensors import SafetensorError

MANIFEST = "manifest.json"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
OF_TRAINING = {MANIFEST, OPTIMIZER, STATE}  # what a checkpoint has besides the model


class CheckpointError(Exception):
    """One line: what could not be written or read, and what to do."""


class Checkpoints:
    """The checkpoints of a run, folders update_N. Only the main process writes.

    Args:
        folder: that they are in; need not exist.
        total_limit: how many of the newest are kept, besides those that must be kept.
    """

    def __init__(self, folder: Path, total_limit: int):
        self.folder, self.total_limit = folder, total_limit

    def path(self, update: int) -> Path:
        return self.folder / f"update_{update}"

    def updates(self) -> list[int]:
        """Of which updates there are checkpoints, rising; whether they are undamaged `verify` tells."""
        names = (path.name for path in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted(int(name[7:]) for name in names if re.fullmatch(r"update_\d+", name))

    def find(self, wanted: str | None) -> Path | None:
        """The checkpoint that a run is to go on from.

        Args:
            wanted: "latest", a folder, or None.

        Raises:
            CheckpointError: the folder is no whole checkpoint.
        """
        if wanted is None:
            return None
        if wanted == "latest":
            found = self.latest()
            if found is None:
                print(f"train.py: no checkpoint in {self.folder} yet, starting from the beginning", file=sys.stderr)
            return found
        source = Path(wanted).resolve()
        if not re.fullmatch(r"update_\d+", source.name):
            raise CheckpointError(f"expected a folder checkpoints/update_N to go on from, got {wanted}")
        verify(source)
        return source

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

    def start(self, source: Path | None, best_update: int = 0, overwrite: bool = False) -> None:
        """Make ready for a run that goes on from a checkpoint, or from none: then those of an earlier run are removed.

        Args:
            source: that it goes on from. Where it lies elsewhere the best one so far is brought along.
            best_update: of the best one so far, 0 if there is none.
            overwrite: later ones may be removed.

        Raises:
            CheckpointError: there are later ones; or the best one is not beside `source`, or damaged.
        """
        if source is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        here = source.parent.resolve() == self.folder.resolve()
        update = int(source.name.removeprefix("update_"))
        later = [other for other in self.updates() if other > update or not here]
        if later and not overwrite:
            raise CheckpointError(
                f"{self.folder} has other checkpoints, up to {self.path(later[-1])}; choose another output_dir, or "
                f"add --overwrite_output_dir true to lose them"
            )
        for other in later:
            shutil.rmtree(self.path(other))
        if best_update:
            best = source.with_name(f"update_{best_update}")
            verify(best)
            if not here:
                self.write(best_update, lambda folder: shutil.copytree(best, folder, dirs_exist_ok=True))

    def write(self, update: int, fill: Callable[[Path], None], keep: Collection[int] = ()) -> None:
        """Write the checkpoint of an update, then remove the oldest.

        Args:
            update: after which it is.
            fill: writes its files into the folder that it is given.
            keep: updates whose checkpoints stay, however old.

        Raises:
            CheckpointError: it could not be written, for want of space perhaps; those before are as they were.
        """
        aside = self.folder / f"partial_{update}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            fill(aside)
            (aside / MANIFEST).write_text(json.dumps(_manifest(aside), indent=1) + "\n", encoding="utf-8")
            for file in aside.rglob("*"):
                _flush(file)
            _put_in_place(aside, self.path(update))
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            before = self.updates()
            last = f"the last whole one is {self.path(before[-1])}" if before else "there is none before it"
            raise CheckpointError(
                f"cannot write the checkpoint of update {update}: {reason(error)}; {last}"
            ) from error
        self._rotate({update, *keep})

    def _rotate(self, keep: set[int]) -> None:
        for update in self.updates()[: -self.total_limit]:
            if update not in keep:
                shutil.rmtree(self.path(update), ignore_errors=True)
        for leftover in self.folder.glob("partial_*"):  # of a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)


def verify(folder: Path) -> None:
    """Raise CheckpointError where a checkpoint is not what its manifest says."""
    try:
        expected = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(expected, dict):
            raise ValueError
        found = _manifest(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: {reason(error)}") from None
    except ValueError:
        raise CheckpointError(f"{folder} is no whole checkpoint: its {MANIFEST} is damaged") from None
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            what = "is missing" if name not in found else "is not its own" if name not in expected else "is damaged"
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} {what}")


def _manifest(folder: Path) -> dict[str, dict]:
    """Size and hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _describe(path) for path in files}


def _describe(path: Path) -> dict:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _put_in_place(aside: Path, path: Path) -> None:
    """Rename; what has the name already is damaged, or from an update that was done twice."""
    old = path.with_name(f"partial_old_{path.name}")
    if path.exists():
        path.rename(old)
    _flush(aside)
    aside.rename(path)
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
