"""Every tracker that Accelerate has, by its name, with the names of the project and the run."""

import sys
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from shtopk.training.arguments import TRACKERS, TrainArguments
from shtopk.training.trackers import log_folder, start_trackers


def test_all_trackers_of_accelerate_are_known():
    assert set(TRACKERS) == set(LOGGER_TYPE_TO_CLASS)
    told = TrainArguments.__dataclass_fields__["tracker"].metadata["help"]
    assert all(name in told for name in TRACKERS)


@pytest.mark.parametrize(("given", "named"), [("mine", {"name": "mine"}), (None, {})])
def test_project_and_run_have_their_names(given, named, monkeypatch):
    started = {}

    def init(project, **options):
        started.update(project=project, options=options)
        return SimpleNamespace(config=SimpleNamespace(update=lambda *_, **__: None), finish=lambda: None)

    wandb = SimpleNamespace(init=init, config=SimpleNamespace(update=lambda *_, **__: None))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    accelerator = Accelerator()
    accelerator.log_with = ["wandb"]  # past the check whether it is installed
    training = TrainArguments(tracker="wandb", project="topics", run_name=given)
    start_trackers(accelerator, training, {"k": "4", "protected": [], "window": None})
    assert started == {"project": "topics", "options": named}


def test_tensorboard_calls_a_run_by_its_folder():
    assert log_folder(TrainArguments(run_name="mine")) == "logs/mine"
    assert log_folder(TrainArguments()) == "logs"
