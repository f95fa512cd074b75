"""What train.py is made of: which documents an update reads, checkpoints, what is said of a run while it goes on.

train.py tells the story; a file here has one noun of it each.
"""

from training.batches import MicroBatch, Updates
from training.build import build_model, parameter_groups, poolings
from training.checkpoints import CheckpointError, Checkpoints, publish, reason
from training.evaluation import Stopped
from training.history import History
from training.interruption import Interruption
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
    "MicroBatch",
    "Progress",
    "Provenance",
    "Run",
    "Stopped",
    "Updates",
    "any_process",
    "build_model",
    "device_name",
    "load_weights",
    "on_main_process",
    "parameter_groups",
    "plot",
    "poolings",
    "profiler",
    "publish",
    "read_state",
    "reason",
    "restore",
    "sharding",
    "train_step",
]
