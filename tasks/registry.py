"""The tasks by their names."""

from __future__ import annotations

from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.bbc import BBC
from shtopk.tasks.docstrings import DOCSTRINGS
from shtopk.tasks.files import FILE_SUMMARIES, FILES
from shtopk.tasks.hub import HUB, HUB_SUMMARIES
from shtopk.tasks.needle import NEEDLE
from shtopk.tasks.pairs import PAIRS
from shtopk.tasks.rfc import RFC
from shtopk.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (BBC, NEEDLE, PAIRS, DOCSTRINGS, RFC, FILES, HUB)}
"""The tasks by name; files and hub with classes."""
SUMMARY_TASKS: dict[str, Task] = {task.name: task for task in (FILE_SUMMARIES, HUB_SUMMARIES)}


def get_task(arguments: DataArguments) -> Task:
    """The task that the arguments name. Files and hub have one for classes and one for summaries.

    Args:
        arguments: the data's.

    Raises:
        ValueError: no task has this name.
    """
    known, where = {"label": (TASKS, ""), "summary": (SUMMARY_TASKS, " with a summary_column")}[arguments.answer]
    if arguments.task not in known:
        raise ValueError(f"expected task to be one of {', '.join(known)}{where}, got {arguments.task!r}")
    return known[arguments.task]


def check(arguments: DataArguments) -> None:
    """Check the data's arguments. No data is read.

    Raises:
        ValueError: in one line: they cannot work.
    """
    get_task(arguments).check(arguments)
