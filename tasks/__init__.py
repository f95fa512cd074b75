"""What models are trained on: one record per task."""

from datasets import DatasetDict

from tasks.arguments import DataArguments
from tasks.bbc import BBC
from tasks.files import FILES, HUB
from tasks.needle import NEEDLE
from tasks.splits import spread_sample
from tasks.task import Task

TASKS = {task.name: task for task in (BBC, NEEDLE, FILES, HUB)}


def check(arguments: DataArguments) -> Task:
    """The task asked for; ValueError for arguments that cannot work. Reads and downloads no data."""
    if arguments.task not in TASKS:
        raise ValueError(f"expected task to be one of {', '.join(TASKS)}; got {arguments.task!r}")
    for name in ("max_train_samples", "max_eval_samples"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    task = TASKS[arguments.task]
    task.check(arguments)
    return task


def load(arguments: DataArguments) -> DatasetDict:
    """The splits of a task, no larger than asked for."""
    splits = check(arguments).load(arguments)
    for name, rows in splits.items():
        most = arguments.max_train_samples if name == "train" else arguments.max_eval_samples
        if most is not None and most < len(rows):
            splits[name] = rows.select(spread_sample(rows["label"], most))
    return splits


def encode(tokenizer, splits: DatasetDict) -> DatasetDict:
    """Tokenize, without cutting: columns input_ids, attention_mask and labels."""

    def tokens(rows):
        encoded = tokenizer(rows["text"], truncation=False, return_token_type_ids=False, verbose=False)
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": rows["label"]}

    return splits.map(tokens, batched=True, remove_columns=splits["train"].column_names, desc="tokenize")


__all__ = ["TASKS", "DataArguments", "Task", "check", "encode", "load"]
