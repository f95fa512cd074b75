"""The parts that the commands are made of, one noun in each file.

An `Experiment` is what any command needs: arguments, task, texts, tokenizer, model, accelerator. A `Run` is an
experiment that trains; `resume`, `fit` and `finish` are its steps.
"""

from typing import TYPE_CHECKING

from shtopk.late import late
from shtopk.training.arguments import Arguments, TrainArguments
from shtopk.training.command_line import parse
from shtopk.training.ending import one_line_at_the_end
from shtopk.training.model_arguments import ModelArguments

if TYPE_CHECKING:
    from shtopk.training.dry_run import plan
    from shtopk.training.evaluation import evaluate, predict
    from shtopk.training.experiment import Experiment
    from shtopk.training.loop import fit
    from shtopk.training.results import finish
    from shtopk.training.run import Run
    from shtopk.training.snapshot import resume

__all__ = [
    "Arguments",
    "Experiment",
    "ModelArguments",
    "Run",
    "TrainArguments",
    "evaluate",
    "finish",
    "fit",
    "one_line_at_the_end",
    "parse",
    "plan",
    "predict",
    "resume",
]
__getattr__ = late(
    __name__,
    {"Experiment": "experiment", "Run": "run", "evaluate": "evaluation", "finish": "results", "fit": "loop",
     "plan": "dry_run", "predict": "evaluation", "resume": "snapshot"},
)  # fmt: skip
