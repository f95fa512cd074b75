"""The records of a source of any documents, one for each kind of answer."""

from __future__ import annotations

from typing import Any

from shtopk.tasks.baselines import BASELINES
from shtopk.tasks.completion import Completion
from shtopk.tasks.multi_label import MultiLabelClassification
from shtopk.tasks.regression import Regression
from shtopk.tasks.task import Classification, Summarization, Task


def of_any_rows(source: str, **record: Any) -> dict[str, Task]:
    """{target: a record} for a source of any documents: with a class, any labels, a number, a summary or a completion
    for each.
    """

    def described(answers: str) -> dict[str, Any]:
        return {"description": f"Documents and their {answers} from {source}", **record}

    tasks = (
        Classification(**described("classes")),
        MultiLabelClassification(**described("labels")),
        Regression(**described("numbers")),
        Summarization(**described("summaries"), leads=BASELINES),
        Completion(**described("completions")),
    )
    return {task.target: task for task in tasks}
