"""The figures of a checkpoint on any data.

shtopk evaluate runs/latest                             the test split that it was trained beside
shtopk evaluate runs/latest --test_file new.jsonl
shtopk evaluate runs/latest --dataset_name imdb --split train --max_eval_samples 1000
accelerate launch -m shtopk evaluate runs/latest --test_file new.jsonl

The checkpoint comes from train.py, from Trainer, from pool_encoder and save_pretrained, or is a PEFT adapter over one
of these. Columns and max_tokens are those of its training, if no others are given; max_eval_samples is not taken over.
It prints the figures, and writes results.json, predictions.jsonl and, for up to 100 classes, confusion.png into the
output folder.
"""

from __future__ import annotations

from shtopk.training.arguments import EvaluationArguments
from shtopk.training.command_line import of_checkpoint
from shtopk.training.console import command, speaking_as
from shtopk.training.ending import one_line_at_the_end


def main(argv: list[str]) -> None:
    with speaking_as("shtopk evaluate"), one_line_at_the_end(argv, trains=False):
        checkpoint, data, arguments = of_checkpoint(argv, EvaluationArguments, __doc__)
        from shtopk.training.evaluation import predict_one  # which take long to import
        from shtopk.training.examination import examine
        from shtopk.training.measured import figures_as_text, write_answers, write_results
        from shtopk.training.trained import Trained

        trained = Trained(checkpoint, data, arguments)
        predict_one(trained, arguments.split)
        examined = examine(trained)
        results = {"command": command(argv)} | examined.results
        if trained.accelerator.is_main_process:
            try:
                trained.output.mkdir(parents=True, exist_ok=True)
                write_results(results, trained.output)
                write_answers(trained, trained.split, examined.answers)
            finally:  # on a full disk the figures are not lost
                speed = results["speed"]["documents_per_second"]
                print(figures_as_text(results))
                print(f"{results['data']['documents']:,} documents, {speed:.1f} a second; see {trained.output}")
        trained.accelerator.end_training()
