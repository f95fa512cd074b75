"""What every benchmark writes as JSON: its figures, one for each run, and where they come from."""

import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch


def resume(path: Path, device: str, **facts: Any) -> dict:
    """The record in a file, to go on where it stopped; without the file a new one, whose "runs" are empty.

    Figures of two machines must not stand in one table: ends with a line where the file was measured on another
    device, with another torch or with other facts.

    Args:
        device: a torch device; its name is written down.
        facts: what else all runs have in common.
    """
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
    here = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu,
        "torch": torch.__version__,
        **facts,
    }
    before = json.loads(path.read_text()) if path.exists() else {"command": "", **here, "runs": []}
    for name, value in here.items():
        if before.get(name) != value:
            sys.exit(f"{path} has figures of {name} {before.get(name)}, this is {value}; move it away to measure anew")
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return before | here | {"command": command}


def save(record: dict, path: Path) -> None:
    path.write_text(json.dumps(record, indent=1) + "\n")
