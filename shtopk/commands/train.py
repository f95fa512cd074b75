"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k, or a language model whose
layers pool its prompts.

shtopk train --train_file mine.jsonl [--any_field value ...]
shtopk train --config configs/bbc.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml -m shtopk train --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder then holds the best checkpoint (with its model card), all_results.json, the predictions, the measures
of every update (history.jsonl, training.png), the origin of it all (run.json, arguments.yaml) and, if asked for, pages
to look at. A run that ended early goes on with --resume latest. With --dry_run true, it says what would be done.
"""

from __future__ import annotations

from typing import Any

from shtopk.training import one_line_at_the_end, parse
from shtopk.training.console import command, speaking_as


def main(argv: list[str]) -> None:
    """Run `shtopk train`."""
    with speaking_as("shtopk train"):
        train(argv, __doc__)


def train(argv: list[str], description: str | None = None, again: str | None = None) -> dict[str, Any]:
    """Run one experiment. Returns the content of all_results.json; of a dry run nothing.

    If it does not come to its end, the process ends with one line and an exit code: 2 if the input is refused, 1 if
    training failed, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        argv: the words of the command line.
        description: what `--help` shows first.
        again: how to go on after a stop, for the last line; None: the command itself.
    """
    with one_line_at_the_end(argv, again=again) as begun:
        arguments = parse(argv, description)
        from shtopk.training import Run, finish, fit, plan, resume  # which take long to import

        run = Run(arguments, command(argv))  # texts, tokenizer and model; optimizer, schedule and batches
        if arguments.training.dry_run:
            if run.accelerator.is_main_process:
                print(plan(run))
            return {}
        resume(run)  # the folder is locked; where a checkpoint is asked for, the run goes on from there
        begun.run = run
        fit(run)  # updates of the weights; evaluations, each with a checkpoint; history and trackers
        return finish(run)  # the best checkpoint on the test split; metrics, answers, model card and pages
