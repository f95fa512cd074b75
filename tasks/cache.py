"""A cache for prepared data, for each version of its sources and of this code."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shtopk.tasks.split import digest

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

KEPT = 30 * 86400  # seconds that prepared data is kept without being used


def cached(name: str, sources: str, read: Callable[[Path], DatasetDict]) -> DatasetDict:
    """Return read(folder), mapped into memory. From the second time on it comes from the cache of `datasets`
    (HF_DATASETS_CACHE).

    What nobody has used for 30 days is removed from there when something new comes.

    Args:
        name: of the corpus.
        sources: a text that differs whenever the data does: versions, names and sizes of files.
        read: prepares the data; the folder that it is given may hold files meanwhile.

    Raises:
        ValueError: the cache cannot be written.
    """
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE) / "shtopk" / f"{name}-{digest(sources + _code())[:16]}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_old(folder.parent)
            # Written to another folder and then renamed: no process ever sees half of it.
            unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        except OSError as error:
            raise ValueError(f"cannot write into {folder.parent}, where prepared data is kept: {error.strerror}; "
                             "set HF_DATASETS_CACHE to another folder") from None  # fmt: skip
        try:
            (unfinished / "tables").mkdir()
            with _without_bars():  # one for each step of each split
                read(unfinished / "tables").save_to_disk(unfinished / "data")
            (unfinished / "data").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    with suppress(OSError):  # somebody else's, to be read alone
        folder.touch()
    return datasets.load_from_disk(folder)


def remembered(split: Dataset, name: str, work: Callable[[], Any]) -> Any:
    """Return work(), a value that JSON can hold. For a split on disk it is kept beside it.

    Args:
        split: what the work is done on, and nothing else.
        name: of the work.
    """
    if not split.cache_files:
        return work()
    path = Path(split.cache_files[0]["filename"]).parent / f"{name}-{split._fingerprint}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = work()
    with suppress(OSError):  # then it is worked out again next time
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(value, file)
        Path(file.name).replace(path)
    return value


@contextmanager
def _without_bars() -> Iterator[None]:
    """Inside this context `datasets` shows no progress bars."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _code() -> str:
    """The version of this code, as hashes: all of it at once would be more than some data."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return "".join(digest(file.read_text(encoding="utf-8")) for file in files)


def _remove_old(folder: Path) -> None:
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # what another process was at work on, and has renamed meanwhile
            if entry.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(entry, ignore_errors=True)
