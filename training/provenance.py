"""Where a run comes from: its arguments, the packages, the code and the data, written into its folder."""

import hashlib
import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset

from shtopk.tasks.cache import remembered
from shtopk.tasks.columns import PAIR, TEXT
from shtopk.tasks.table import each
from shtopk.training.experiment import Experiment
from shtopk.training.model_arguments import without_own_temperatures
from shtopk.training.run_folder import ARGUMENTS, COURSE, ORIGIN, TRACE, written
from shtopk.training.whole import write_whole

ROOT = Path(__file__).resolve().parent.parent
# Fields that may change when a run goes on.
FREE = {
    *("output_dir", "overwrite", "resume", "save_every", "total_limit"),
    *("batch_size", "accumulation"),  # as long as an update has as many documents
    *("eval_batch_size", "tracker", "project", "run_name", "profile", "show", "config", "probe_documents"),
    *("dry_run", "push_to_hub", "private", "workers", "gradient_checkpointing", "windows_at_once"),
    *("train_file", "validation_file", "test_file", "num_proc", "ddp_timeout"),  # their content counts
}
# In arguments.yaml, which starts anew and uploads nothing.
NOT_KEPT = {"resume", "overwrite", "dry_run", "push_to_hub", "private"}


class Provenance:
    """The origin of an experiment. documents_per_update: read by all processes together."""

    def __init__(self, experiment: Experiment, documents_per_update: int):
        self.command, self.arguments = experiment.command, experiment.arguments.fields()
        self.accelerator, self.documents_per_update = experiment.accelerator, documents_per_update
        self.commits = {"backbone": getattr(experiment.model, "backbone_commit", None),
                        "dataset": commit_of(experiment.texts["train"])}  # fmt: skip
        self.data: dict[str, dict[str, Any]] = {
            name: {"documents": len(split), "sha256": hash_of(split, experiment.task.target)}
            for name, split in experiment.texts.items()
        }

    @property
    def identity(self) -> dict:
        """What must be the same in a run that goes on with this one."""
        shared = {name: value for name, value in self.arguments.items() if name not in FREE}
        data = {f"data ({name})": split["sha256"][:12] for name, split in self.data.items()}
        shared["mixed_precision"] = self.accelerator.mixed_precision  # what auto means here
        return shared | data | {"documents per update": self.documents_per_update}

    def differences(self, identity: dict) -> str:
        """How this run differs from another one, in one line; "" for not at all."""
        mine = json.loads(json.dumps(self.identity))
        identity = {name: value for name, value in identity.items() if name not in FREE}  # more are free by now
        if others := sorted(mine.keys() ^ identity.keys()):
            return f"it is of another version of train.py, whose fields are others ({', '.join(others)})"
        return ", ".join(f"{name} was {identity[name]} and is {mine[name]}"
                         for name in sorted(mine) if mine[name] != identity[name])  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write arguments.yaml and run.json into a run's folder. Raises OSError if that fails.

        What the run that goes on there wrote before stays noted as its own.
        """
        before = {path.name for path in written(folder)}
        self.write_arguments(folder)
        record = {
            "command": self.command,
            "files": sorted(before | {ARGUMENTS, ORIGIN, *COURSE, *[TRACE] * bool(self.arguments["profile"])}),
            "arguments": self.arguments,
            "data": self.data,
            "commits": self.commits,
            "code": code_revision(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": device_name(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "distributed": self.accelerator.distributed_type.value,
            "threads": torch.get_num_threads(),
            "mixed_precision": self.accelerator.mixed_precision,
            "packages": {
                one.name: one.version
                for one in sorted(metadata.distributions(), key=lambda one: (one.name or "").lower())
            },
        }
        write_whole(folder / ORIGIN, json.dumps(record, indent=1) + "\n")

    def write_arguments(self, folder: Path) -> None:
        """Write arguments.yaml into the folder of a run or a checkpoint: `--config` reads it, and who reads further
        data for the model. Raises OSError if that fails.
        """
        given = without_own_temperatures(self.arguments)
        fields = {name: value for name, value in given.items() if value is not None and name not in NOT_KEPT}
        command = " ".join(self.command.split())  # a comment has one line
        text = f"# {command}\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}"
        (folder / ARGUMENTS).write_text(text, encoding="utf-8")


def code_revision() -> dict | None:
    """The git revision of this code, and whether it has uncommitted changes; None without git."""
    try:
        revision, changes, top = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"], ["rev-parse", "--show-toplevel"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    if Path(top).resolve() != ROOT:  # of another project, in which this one is installed
        return None
    return {"revision": revision, "changed": bool(changes)}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def hash_of(split: Dataset, target: str) -> str:
    """The SHA-256 of the texts and answers of a split, in their order."""
    columns = [name for name in (TEXT, PAIR, target) if name in split.column_names]

    def work() -> str:
        digest = hashlib.sha256()
        for row in each(split, *columns):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    return remembered(split, f"sha256-{target}", work)


def commit_of(split: Dataset) -> str | None:
    """The commit on the hub that a split was downloaded from; None for other data."""
    found = (re.search("@([0-9a-f]{40})/", url) for url in split.info.download_checksums or ())
    return next((match[1] for match in found if match), None)
