"""The names that transformers' scripts and TrainingArguments have for our fields.

A command line and a YAML file may use them. They are replaced before anything is parsed, so all other code knows one
name for each field.
"""

import difflib
from collections.abc import Iterable
from typing import Any

ALIASES = {  # theirs -> ours
    "model_name_or_path": "backbone",
    "model_revision": "backbone_revision",
    "attention": "attn_implementation",
    "dropout": "classifier_dropout",
    "dataset_config_name": "dataset_config",
    "text_column_names": "text_column",
    "text_column_delimiter": "text_separator",
    "label_column_name": "label_column",
    "max_seq_length": "max_tokens",
    "max_source_length": "max_tokens",
    "max_target_length": "max_summary_tokens",
    "max_completion_length": "max_completion_tokens",
    "preprocessing_num_workers": "num_proc",
    "overwrite_output_dir": "overwrite",
    "resume_from_checkpoint": "resume",
    "num_train_epochs": "epochs",
    "max_train_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "max_grad_norm": "max_norm",
    "scorer_max_grad_norm": "scorer_max_norm",
    "eval_steps": "eval_every",
    "metric_for_best_model": "metric",
    "label_smoothing_factor": "label_smoothing",
    "save_steps": "save_every",
    "save_total_limit": "total_limit",
    "report_to": "tracker",
    "dataloader_num_workers": "workers",
    "hub_model_id": "push_to_hub",
    "hub_private_repo": "private",
}

SWEEP = "a trained model has its own; `shtopk sweep` tries others, such as `shtopk sweep CHECKPOINT --k 4,8`"
ALWAYS = "leave it out, it is always so here"
WITHOUT = {  # names of theirs that no field has -> what to do
    **dict.fromkeys(
        ("do_train", "do_eval", "do_predict"),
        "leave it out, as training, validation and test always follow one another; `shtopk evaluate` evaluates alone",
    ),
    **dict.fromkeys(("bf16", "fp16"), "give mixed_precision bf16, fp16 or no"),
    **dict.fromkeys(
        ("eval_strategy", "evaluation_strategy", "save_strategy"),
        "give eval_every and save_every, in updates; by default both happen once an epoch",
    ),
    **dict.fromkeys(("warmup_steps", "num_warmup_steps"), "give warmup, the share of the updates that it takes"),
    **dict.fromkeys(("load_best_model_at_end", "predict_with_generate"), ALWAYS),
    **dict.fromkeys(("logging_steps", "logging_strategy"), "leave it out, every update is logged"),
    **dict.fromkeys(("deepspeed", "fsdp"), "use configs/accelerate/fsdp.yaml with accelerate launch"),
    **dict.fromkeys(("k", "operator", "temperature"), SWEEP),  # where a command takes a checkpoint
    "logging_dir": "leave it out, logs lie in the folder logs of output_dir",
    "pad_to_max_length": "leave it out, a batch is padded to its longest document",
    "trust_remote_code": "leave it out, code that a model carries is never run",
    "max_predict_samples": "give max_eval_samples, which holds for validation and test",
}


def meant(name: str, fields: Iterable[str], dashes: str = "") -> str | None:
    """What somebody meant by a name that no field has, in a few words; None if there is nothing like it.

    Args:
        name: without dashes in front.
        fields: the names that there are.
        dashes: to be put in front of a name that was meant.

    Example:
        >>> meant("num_train_epoch", ["epochs", "k"])
        'did you mean num_train_epochs?'
    """
    name, fields = name.replace("-", "_"), set(fields)
    if name in WITHOUT:
        return WITHOUT[name]
    known = fields | {theirs for theirs, ours in ALIASES.items() if ours in fields}
    close = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    return f"did you mean {dashes}{close[0]}?" if close else None


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
