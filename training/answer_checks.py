"""Which arguments do not fit what a task is answered with."""

from __future__ import annotations

from collections.abc import Sequence

from shtopk.tasks import Task
from shtopk.training.arguments import Arguments
from shtopk.training.model_arguments import OF_SUMMARIES

WORDS = {"label": "classes", "labels": "labels", "value": "numbers", "summary": "summaries"}


def problem_of_answers(arguments: Arguments, tasks: Sequence[Task]) -> str | None:
    """What does not fit, in one line; None if all does.

    Args:
        tasks: the one that the data belongs to, or as long as that is open all that it may belong to.
    """
    model, training = arguments.model, arguments.training
    has = " or ".join(WORDS[task.target] for task in tasks)
    targets = {task.target for task in tasks}
    selectors = list(dict.fromkeys(name for task in tasks for name in task.selectors))
    if training.metric is not None and training.metric not in selectors:
        return f"expected metric to be one of {', '.join(selectors)}; got {training.metric!r}"
    for name in OF_SUMMARIES:
        if getattr(model, name) and "summary" not in targets:
            return f"{name} is for summaries, but the task {tasks[0].name} has {has}; leave it out"
    if not 0 <= training.label_smoothing < 1:
        return f"expected label_smoothing in [0, 1), got {training.label_smoothing}"
    if training.label_smoothing and targets == {"value"}:
        return "label_smoothing is for classes, labels and summaries, but the answers are numbers; leave it out"
    if training.label_smoothing and model.copy_head:
        return "label_smoothing does not go with copy_head, whose loss is another; leave one of them out"
    if training.class_weights and not targets & {"label", "labels"}:
        return f"class_weights are for classes and labels, but the answers are {has}; leave them out"
    if training.tune_thresholds and "labels" not in targets:
        return f"tune_thresholds is for several labels a document, but the answers are {has}; leave it out"
    try:
        _ = training.weights_of_classes
    except ValueError as error:
        return str(error)
    return None
