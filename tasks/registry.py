"""The tasks by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shtopk.tasks.arguments import COLUMNS, DataArguments
from shtopk.tasks.bbc import BBC
from shtopk.tasks.docstrings import DOCSTRINGS
from shtopk.tasks.files import FILES
from shtopk.tasks.hub import HUB
from shtopk.tasks.needle import NEEDLE
from shtopk.tasks.pairs import PAIRS
from shtopk.tasks.recall import RECALL
from shtopk.tasks.rfc import RFC
from shtopk.tasks.task import Task

if TYPE_CHECKING:  # late: it takes long to import
    from collections.abc import Mapping

    from datasets import Dataset

TASKS: dict[str, Task] = {
    task.name: task for task in (BBC, NEEDLE, PAIRS, DOCSTRINGS, RFC, RECALL, FILES["label"], HUB["label"])
}
"""The tasks by name; files and hub with classes."""
ANY_ROWS = {"files": FILES, "hub": HUB}  # tasks that have a record for each kind of answer


def get_task(arguments: DataArguments, data: Mapping[str, Dataset] | None = None) -> Task:
    """The task that the arguments name. Files and hub have one for each kind of answer.

    Args:
        arguments: the data's.
        data: what the task's `load` returned, if it did already. It decides where the arguments leave the kind of
            answer open; without it that is "label".

    Raises:
        ValueError: no task has this name, or it has no such answers.
    """
    answer = arguments.answer
    if answer in (None, "label"):
        known, where = TASKS, ""
    else:
        known = {name: records[answer] for name, records in ANY_ROWS.items()}
        where = f" with a {arguments.answer_field if answer in ('summary', 'completion') else 'problem_type'}"
    if arguments.task not in known:
        raise ValueError(f"expected task to be one of {', '.join(known)}{where}, got {arguments.task!r}")
    if answer is None and data is not None:
        columns = next(iter(data.values())).column_names
        return next(record for target, record in ANY_ROWS[arguments.task].items() if target in columns)
    return known[arguments.task]


def possible_tasks(arguments: DataArguments) -> list[Task]:
    """The tasks that `get_task` may return once the data is there. Raises ValueError as it does."""
    task = get_task(arguments)
    return [task] if arguments.answer is not None else [ANY_ROWS[task.name][answer] for answer in COLUMNS.values()]


def check(arguments: DataArguments) -> None:
    """Check the data's arguments. No data is read.

    Raises:
        ValueError: in one line: they cannot work.
    """
    get_task(arguments).check(arguments)
