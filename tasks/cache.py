"""A cache for corpora that take long to prepare, for each version of their sources and of this code."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shtopk.tasks.split import digest

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import DatasetDict


def cached(name: str, sources: str, read: Callable[[], DatasetDict]) -> DatasetDict:
    """Return read(). From the second time on it comes from the cache of `datasets` (HF_DATASETS_CACHE).

    Args:
        name: of the corpus.
        sources: a text that differs whenever the corpus does: versions, names and sizes of files.
        read: prepares the corpus.
    """
    import datasets

    code = "".join(file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.py")))
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "shtopk" / f"{name}-{digest(sources + code)[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written to another folder and then renamed: no process ever sees half of it.
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            read().save_to_disk(unfinished)
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return datasets.load_from_disk(folder)
