"""What models are trained on: corpora, their splits, metrics and preprocessing; one record per task.

>>> arguments = DataArguments(task="bbc")
>>> check(arguments)
>>> data = get_task(arguments.task).load(arguments)  # DatasetDict: train, validation, test
"""

from tasks.arguments import DataArguments
from tasks.bbc import BBC
from tasks.files import FILES
from tasks.hub import HUB
from tasks.metrics import classification_metrics
from tasks.needle import NEEDLE
from tasks.preprocess import encode
from tasks.task import Task

__all__ = ["TASKS", "DataArguments", "Task", "check", "classification_metrics", "encode", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (BBC, NEEDLE, FILES, HUB)}


def get_task(name: str) -> Task:
    """The record of a task; `TASKS` holds them all."""
    if name not in TASKS:
        raise ValueError(f"expected task to be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def check(arguments: DataArguments) -> None:
    """Raise ValueError, in one line, for what can be seen to be wrong before any data is read."""
    get_task(arguments.task).check(arguments)
