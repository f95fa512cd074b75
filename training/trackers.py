"""The trackers that measures are logged to besides history.jsonl, by the names that Accelerate has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator

from shtopk.training.arguments import TrainArguments

# What a tracker's package calls the name of a run, where it takes one as it starts. TensorBoard has folders instead.
NAME_OF_RUN = {
    "clearml": "task_name",
    "dvclive": "exp_name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "trackio": "name",
    "wandb": "name",
}


def start_trackers(accelerator: Accelerator, training: TrainArguments, fields: Mapping[str, Any]) -> None:
    """Start the trackers of a run, with its project, its name and its fields.

    Args:
        fields: all arguments, for the trackers to show.
    """
    config = {name: x if isinstance(x, bool | int | float | str) else str(x) for name, x in fields.items()}
    run_name = training.run_name
    options: dict[str, dict[str, Any]] = {}
    for tracker in training.trackers:
        if run_name is not None and tracker in NAME_OF_RUN:
            options[tracker] = {NAME_OF_RUN[tracker]: run_name}
    if "aim" in training.trackers:
        options["aim"] = {"experiment": training.project}
    accelerator.init_trackers(training.project, config=config, init_kwargs=options)
    if run_name is not None and accelerator.is_main_process:
        if "aim" in training.trackers:  # Accelerate calls the run as the project
            accelerator.get_tracker("aim", unwrap=True).name = run_name
        if "comet_ml" in training.trackers:
            accelerator.get_tracker("comet_ml", unwrap=True).set_name(run_name)


def log_folder(training: TrainArguments) -> str:
    """The folder of logs inside output_dir, where TensorBoard calls a run by its folder."""
    return "/".join(["logs", *([training.run_name] if training.run_name else [])])
