"""The history of a run: a line of JSON for the measures of each update, each evaluation and each look between them."""

import json
import shutil
from pathlib import Path

from shtopk.training.whole import write_whole

HISTORY = "history.jsonl"


class History:
    """The file that measures are written to; only the main process has one.

    A run that goes on writes some lines again. So lines of updates after `update` and of evaluations after `evaluated`
    are dropped when the file is opened.
    """

    def __init__(self, path: Path, update: int = 0, evaluated: int = 0):
        self.path = path
        before = read_history(path) if path.exists() and update else []
        kept = [row for row in before if row["update"] <= (evaluated if is_evaluation(row) else update)]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, update: int, measured: dict) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"update": update} | measured) + "\n")


def read_history(path: Path) -> list[dict]:
    """The rows of a file; a line that a kill left half-written is skipped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def is_evaluation(row: dict) -> bool:
    return any(name.startswith("eval_") for name in row)


def bring_along(source: Path, path: Path) -> None:
    """Copy the history of the run to go on with. If there is none, remove the history that is here."""
    if source.exists():
        shutil.copyfile(source, path)
    else:
        path.unlink(missing_ok=True)
