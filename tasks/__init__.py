"""What models are trained on: corpora, their splits, preprocessing and metrics. Each task is one record.

>>> arguments = DataArguments(task="bbc")
>>> check(arguments)
>>> data = get_task(arguments).load(arguments)  # DatasetDict: train, validation, test
"""

from typing import TYPE_CHECKING

from shtopk.late import late
from shtopk.tasks.arguments import DataArguments
from shtopk.tasks.completion import Completion
from shtopk.tasks.multi_label import MultiLabelClassification
from shtopk.tasks.registry import TASKS, check, get_task
from shtopk.tasks.regression import Regression
from shtopk.tasks.samples import write_predictions, write_samples
from shtopk.tasks.task import Classification, Summarization, Task

if TYPE_CHECKING:
    from shtopk.tasks.metrics import classification_metrics, multi_label_metrics, regression_metrics
    from shtopk.tasks.rouge import completion_metrics, summarization_metrics

__all__ = [
    "TASKS",
    "Classification",
    "Completion",
    "DataArguments",
    "MultiLabelClassification",
    "Regression",
    "Summarization",
    "Task",
    "check",
    "classification_metrics",
    "completion_metrics",
    "get_task",
    "multi_label_metrics",
    "regression_metrics",
    "summarization_metrics",
    "write_predictions",
    "write_samples",
]
__getattr__ = late(
    __name__,
    dict.fromkeys(("classification_metrics", "multi_label_metrics", "regression_metrics"), "metrics")
    | dict.fromkeys(("completion_metrics", "summarization_metrics"), "rouge"),
)
