"""The figures of a checkpoint on any data.

shtopk evaluate runs/latest                             the test split that it was trained beside
shtopk evaluate runs/latest --test_file new.jsonl
shtopk evaluate runs/latest --dataset_name imdb --split train --max_eval_samples 1000
accelerate launch -m shtopk evaluate runs/latest --test_file new.jsonl

The checkpoint comes from train.py, from Trainer, from pool_encoder and save_pretrained, or is a PEFT adapter over one
of these. Columns and limits are those of its training unless given. Prints the figures; the output folder gets
results.json, predictions.jsonl and, for classes, confusion.png.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from shtopk.tasks.arguments import option
from shtopk.training.arguments import TrainArguments
from shtopk.training.command_line import of_checkpoint
from shtopk.training.console import command, speaking_as
from shtopk.training.ending import one_line_at_the_end


@dataclass
class EvaluateArguments:
    _argument_group_name: ClassVar[str] = "evaluation"
    split: str = option("test", "train, validation or test, or another one that a data set on the hub has")
    output_dir: str = option("runs/evaluation", "folder of results.json")
    overwrite: bool = option(False, "replace what lies in output_dir")
    eval_batch_size: int = option(16, "documents per process")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option("auto", "auto: bf16 where the device can")


def main(argv: list[str]) -> None:
    with speaking_as("shtopk evaluate"), one_line_at_the_end(argv, trains=False):
        checkpoint, data, arguments = of_checkpoint(argv, EvaluateArguments, __doc__)
        from shtopk.training.evaluation import predict_one  # which take long to import
        from shtopk.training.examination import examine
        from shtopk.training.measured import figures_as_text, write_answers, write_results
        from shtopk.training.trained import Trained

        training = TrainArguments(
            output_dir=arguments.output_dir,
            eval_batch_size=arguments.eval_batch_size,
            mixed_precision=arguments.mixed_precision,
        )
        trained = Trained(checkpoint, data, arguments.split, training, {})
        predict_one(trained, arguments.split)
        examined = examine(trained)
        results = {"command": command(argv)} | examined.results
        if trained.accelerator.is_main_process:
            try:
                trained.output.mkdir(parents=True, exist_ok=True)
                write_results(results, trained.output)
                write_answers(trained, examined.answers)
            finally:  # on a full disk the figures are not lost
                speed = results["speed"]["documents_per_second"]
                print(figures_as_text(results))
                print(f"{results['data']['documents']:,} documents, {speed:.1f} a second; see {trained.output}")
        trained.accelerator.end_training()
