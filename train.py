"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k.

python train.py --config configs/bbc.yaml [--any_field value ...]
python train.py --config configs/docstrings.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --config configs/bbc.yaml
torchrun --nproc_per_node 2 train.py --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder gets the best checkpoint (with its model card), all_results.json, the predictions, what was measured
on the way (history.jsonl, training.png), where it all comes from (run.json, arguments.yaml) and, if asked for, pages
to look at. A run that ended early goes on with --resume latest.
"""

import sys

from shtopk.training import Run, finish, fit, one_line_at_the_end, resume


def main(argv: list[str] | None = None) -> dict:
    """Run one experiment; returns the content of all_results.json.

    Otherwise it ends with one line and an exit code: 2 where the input is refused, 1 where training failed, and 130 or
    143 where Ctrl-C or SIGTERM stopped it.
    """
    argv = sys.argv[1:] if argv is None else argv
    with one_line_at_the_end(argv) as begun:
        run = Run.prepare(argv, __doc__)  # arguments, texts, tokenizer and model; optimizer, schedule and batches
        resume(run)  # the folder is locked; where a checkpoint is asked for, the run goes on from there
        begun.run = run
        fit(run)  # updates of the weights; evaluations, each with a checkpoint; history and trackers
        return finish(run)  # the best checkpoint on the test split; metrics, answers, model card and pages


if __name__ == "__main__":
    main()
