"""The names that transformers' scripts and TrainingArguments have for our fields.

A command line and a YAML file may use them. They are replaced before anything is parsed, so all other code knows one
name for each field.
"""

from collections.abc import Iterable
from typing import Any

ALIASES = {  # theirs -> ours
    "model_name_or_path": "backbone",
    "attention": "attn_implementation",
    "dropout": "classifier_dropout",
    "dataset_config_name": "dataset_config",
    "text_column_names": "text_column",
    "text_column_delimiter": "text_separator",
    "label_column_name": "label_column",
    "max_seq_length": "max_tokens",
    "max_source_length": "max_tokens",
    "max_target_length": "max_summary_tokens",
    "preprocessing_num_workers": "num_proc",
    "overwrite_output_dir": "overwrite",
    "resume_from_checkpoint": "resume",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "max_grad_norm": "max_norm",
    "scorer_max_grad_norm": "scorer_max_norm",
    "eval_steps": "eval_every",
    "metric_for_best_model": "metric",
    "save_steps": "save_every",
    "save_total_limit": "total_limit",
    "report_to": "tracker",
}


def our_names(names: Iterable[Any]) -> dict[Any, Any]:
    """{name given: the field's own name}.

    Raises:
        ValueError: two of the names given stand for one field.
    """
    ours = {name: ALIASES.get(name, name) for name in names}
    first: dict[Any, Any] = {}
    for name, field in ours.items():
        if first.setdefault(field, name) != name:
            raise ValueError(f"{first[field]} and {name} are two names of one field, {field}; leave one of them out")
    return ours


def with_our_names(words: list[str]) -> list[str]:
    """The words of a command line with every option under its own name.

    Raises:
        ValueError: two options stand for one field.

    Example:
        >>> with_our_names(["--num-train-epochs", "2", "--save_steps=50"])
        ['--epochs', '2', '--save_every=50']
    """
    options = {word: word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    ours = our_names(options.values())
    return [
        f"--{ours[name]}{word[2 + len(name) :]}" if (name := options.get(word)) in ALIASES else word for word in words
    ]
