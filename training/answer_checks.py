"""Which arguments do not fit what a task is answered with."""

from __future__ import annotations

from collections.abc import Sequence

from shtopk.tasks import Task
from shtopk.training.arguments import Arguments
from shtopk.training.model_arguments import GENERATION, OF_SUMMARIES, ModelArguments

WORDS = {"label": "classes", "labels": "labels", "value": "numbers", "summary": "summaries",
         "completion": "completions"}  # fmt: skip
WRITTEN = ("generation", *GENERATION)  # what belongs to whatever is generated
NOT_OF_COMPLETIONS = {  # of a language model, which reads prompts whole -> what to do instead
    "k": "give it by layer, k_by_layer",
    "window": "leave it out",
    "window_k": "leave it out",
    "source_prefix": "write it into the prompts",
    "classifier_dropout": "leave it out, there is backbone_dropout",
    "decoder_layers": "leave it out",
    "torch_compile": "leave it out, it compiles encoders",
}


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
        if getattr(model, name) and not targets & {"summary", *["completion"] * (name in WRITTEN)}:
            return f"{name} is for summaries, but the task {tasks[0].name} has {has}; leave it out"
    if model.decoder_layers != ModelArguments.decoder_layers:
        if not targets & {"summary", "completion"}:
            return f"decoder_layers is for summaries, but the task {tasks[0].name} has {has}; leave it out"
        if model.decoder is not None:
            return (
                f"decoder_layers is for a decoder made from the encoder, but decoder is {model.decoder}; leave it out"
            )
    if problem := _completion_problem(arguments, targets):
        return problem
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


def _completion_problem(arguments: Arguments, targets: set[str]) -> str | None:
    """What does not fit a causal language model, or belongs to one alone."""
    model = arguments.model
    if "completion" not in targets:
        if model.keep_last != ModelArguments.keep_last:
            return "keep_last is for completions, where the end of a prompt is kept; leave it out"
        return None
    for name, cure in NOT_OF_COMPLETIONS.items():
        group = model if hasattr(model, name) else arguments.training
        if getattr(group, name) != getattr(type(group), name):
            return f"{name} is not for completions; {cure}"
    if model.keep_last < 1:
        return f"expected keep_last >= 1, got {model.keep_last}: the last token of a prompt predicts what follows"
    if model.backbone is None:
        return (
            "expected a backbone that completes prompts, a causal language model, got none; name a folder or hub name"
        )
    if model.k_by_layer in (None, "none"):
        return (
            "expected k_by_layer, such as 8:256: from which layer on prompts are pooled, and to how many vectors; "
            "got none"
        )
    return None
