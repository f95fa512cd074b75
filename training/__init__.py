"""What train.py is made of; each file holds one noun.

`Experiment` is what any command needs: arguments, task, texts, tokenizer, model, accelerator. A `Run` is an experiment
that trains: `resume`, `fit` and `finish` are its steps.
"""

from shtopk.training.arguments import Arguments, TrainArguments
from shtopk.training.ending import one_line_at_the_end
from shtopk.training.evaluation import evaluate, predict
from shtopk.training.experiment import Experiment
from shtopk.training.loop import fit
from shtopk.training.results import finish
from shtopk.training.run import Run
from shtopk.training.snapshot import resume

__all__ = [
    "Arguments",
    "Experiment",
    "Run",
    "TrainArguments",
    "evaluate",
    "finish",
    "fit",
    "one_line_at_the_end",
    "predict",
    "resume",
]
