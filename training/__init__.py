"""What train.py is made of: which documents an update reads, checkpoints, what is said of a run while it goes on.

train.py tells the story; a file here has one noun of it each.
"""

from shtopk.training.batches import Updates
from shtopk.training.build import build_model, build_optimizer, parameter_groups
from shtopk.training.checkpoints import CheckpointError, Checkpoints, publish, reason
from shtopk.training.evaluation import Stopped
from shtopk.training.history import History, bring_along
from shtopk.training.interruption import Interruption, Terminated, terminable
from shtopk.training.meter import Meter
from shtopk.training.plot import plot
from shtopk.training.profile import profiler
from shtopk.training.progress import Progress
from shtopk.training.provenance import Provenance, device_name
from shtopk.training.run import Run
from shtopk.training.snapshot import load_weights, read_state, restore
from shtopk.training.step import Diverged, train_step
from shtopk.training.together import any_process, on_main_process, sharding

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Diverged",
    "History",
    "Interruption",
    "Meter",
    "Progress",
    "Provenance",
    "Run",
    "Stopped",
    "Terminated",
    "Updates",
    "any_process",
    "bring_along",
    "build_model",
    "build_optimizer",
    "device_name",
    "load_weights",
    "on_main_process",
    "parameter_groups",
    "plot",
    "profiler",
    "publish",
    "read_state",
    "reason",
    "restore",
    "sharding",
    "terminable",
    "train_step",
]
