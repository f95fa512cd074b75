"""What train.py is made of: which documents an update reads, checkpoints, what is said of a run while it goes on.

train.py tells the story; a file here has one noun of it each.
"""

from training.batches import Updates
from training.build import build_model, build_optimizer, parameter_groups
from training.checkpoints import CheckpointError, Checkpoints, publish, reason
from training.evaluation import Stopped
from training.history import History, bring_along
from training.interruption import Interruption, Terminated, terminable
from training.meter import Meter
from training.plot import plot
from training.profile import profiler
from training.progress import Progress
from training.provenance import Provenance, device_name
from training.run import Run
from training.snapshot import load_weights, read_state, restore
from training.step import Diverged, train_step
from training.together import any_process, on_main_process, sharding

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
