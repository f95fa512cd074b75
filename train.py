"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k, or a language model whose
layers pool its prompts.

python train.py --config configs/bbc.yaml [--any_field value ...]
python train.py --config configs/docstrings.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --config configs/bbc.yaml
torchrun --nproc_per_node 2 train.py --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder gets the best checkpoint (with its model card), all_results.json, the predictions, what was measured
on the way (history.jsonl, training.png), where it all comes from (run.json, arguments.yaml) and, if asked for, pages
to look at. A run that ended early goes on with --resume latest. With --dry_run true, it says what would be done.

Where shtopk is installed without a clone, `shtopk train` does the same.
"""

import sys

try:
    from shtopk.commands.train import train
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("shtopk"):
        raise
    sys.exit("train.py: expected shtopk to be installed as this clone; run pip install -e '.[train]' here")


def main(argv: list[str] | None = None) -> dict:
    """Run one experiment; see `shtopk.commands.train.train`."""
    return train(sys.argv[1:] if argv is None else argv, __doc__)


if __name__ == "__main__":
    main()
