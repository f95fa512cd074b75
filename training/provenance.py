"""Where a run comes from: its arguments, the packages, the code and the data, written into its folder."""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from datasets import DatasetDict

from shtopk.training.checkpoints import CheckpointError, reason

ROOT = Path(__file__).resolve().parent.parent
# What may differ between a run and the one that it goes on with.
FREE = {
    *("output_dir", "overwrite", "resume", "save_every", "total_limit"),
    *("batch_size", "accumulation"),  # as long as an update has as many documents
    *("eval_batch_size", "tracker", "profile", "show", "config"),
    *("train_file", "validation_file", "test_file"),  # their content counts
}


NOT_KEPT = {"resume", "overwrite"}  # in arguments.yaml, which is for starting anew


class Provenance:
    """Of one run.

    Args:
        command: that started it.
        arguments: every field, defaults too.
        data: the splits, with a text and an answer for each document.
        target: the column of answers.
        accelerator: that it runs on.
        documents_per_update: of all processes together.
    """

    def __init__(
        self,
        command: str,
        arguments: dict,
        data: DatasetDict,
        target: str,
        accelerator: Accelerator,
        documents_per_update: int,
    ):
        self.command, self.arguments = command, arguments
        self.data = {name: {"documents": len(its), "sha256": _hash(its, target)} for name, its in data.items()}
        self.documents_per_update = documents_per_update
        self.accelerator = accelerator

    @property
    def identity(self) -> dict:
        """What a run that goes on with this one must share."""
        shared = {name: value for name, value in self.arguments.items() if name not in FREE}
        data = {f"data ({name})": its["sha256"][:12] for name, its in self.data.items()}
        shared["mixed_precision"] = self.accelerator.mixed_precision  # what auto came to be
        return shared | data | {"documents per update": self.documents_per_update}

    def differences(self, identity: dict) -> str:
        """What distinguishes this run from another one, in a line; "" for nothing."""
        mine = json.loads(json.dumps(self.identity))
        if others := sorted(mine.keys() ^ identity.keys()):
            return f"it is of another version of train.py, whose fields are others ({', '.join(others)})"
        return ", ".join(f"{name} was {identity[name]} and is {mine[name]}"
                         for name in sorted(mine) if mine[name] != identity[name])  # fmt: skip

    def write(self, folder: Path) -> None:
        """arguments.yaml, which `train.py --config` reads, and run.json; CheckpointError where that cannot be."""
        fields = {name: value for name, value in self.arguments.items() if value is not None and name not in NOT_KEPT}
        words = " ".join(self.command.split())  # a comment has one line
        record = {
            "command": self.command,
            "arguments": self.arguments,
            "data": self.data,
            "code": code_revision(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": device_name(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "distributed": self.accelerator.distributed_type.value,
            "threads": torch.get_num_threads(),
            "mixed_precision": self.accelerator.mixed_precision,
            "packages": {its.name: its.version for its in sorted(metadata.distributions(), key=_name)},
        }
        try:
            (folder / "arguments.yaml").write_text(
                f"# {words}\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}", encoding="utf-8"
            )
            (folder / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"cannot write into {folder}: {reason(error)}; choose another output_dir") from error


def code_revision() -> dict | None:
    """Git's revision of this code, and whether it was changed since; None where there is no git."""
    try:
        revision, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"revision": revision, "changed": bool(changes)}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _hash(split, target: str) -> str:
    digest = hashlib.sha256()
    for text, answer in zip(split["text"][:], split[target][:], strict=True):
        digest.update(json.dumps([text, answer]).encode())
    return digest.hexdigest()


def _name(distribution: metadata.Distribution) -> str:
    return (distribution.name or "").lower()
