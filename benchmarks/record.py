"""The JSON of a benchmark: the figures of its runs, and the command, the code and the machine that they come from."""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import origin
import torch
from sources import ROOT

RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))  # where train.py is


class CommandLine(argparse.ArgumentParser):
    """The options that every benchmark has, beside its own."""

    def __init__(self, description: str | None, *, device: bool = True):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        if device:
            self.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        self.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")

    def parse_args(self, *given: Any) -> Any:
        arguments = super().parse_args(*given)
        arguments.results.mkdir(parents=True, exist_ok=True)
        return arguments


def resume(path: Path, device: str, *, anew: bool = False, **facts: Any) -> dict:
    """The record in a file, to be continued; a new one with empty "runs" if there is no file.

    Exits with one line if the file was measured on another device, with another torch or with other facts: figures of
    two machines must not stand in one table.

    Args:
        device: a torch device; the record has its name.
        anew: the figures of the file are all measured again, at once.
        facts: what else all runs have in common.
    """
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
    current = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu,
        "torch": torch.__version__,
        **facts,
    }
    new = {"command": "", **current, "runs": [], "measured": []}
    record = json.loads(path.read_text()) if path.exists() else new
    for name, value in current.items():
        if record.get(name) != value:
            sys.exit(f"{path} has figures of {name} {record.get(name)}, this is {value}; move it away to measure anew")
    record = new if anew else record
    _origin(path, record)  # of the code as it is before anything is measured
    return record | current | {"command": command()}


def command() -> str:
    """The command of this process, but for the folder of its results; or what `make results` says in MADE_BY."""
    if made_by := os.environ.get("MADE_BY"):
        return made_by
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--results":
            next(words, None)
        elif not word.startswith("--results="):
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])


def save(record: dict, path: Path) -> None:
    """Write a record into its file, with the origin of what is new in it (origin.py)."""
    before = json.loads(path.read_text()) if path.exists() else {}
    if measured := origin.measured(record, before, _origin(path, record)):
        record["measured"] = measured
    path.write_text(json.dumps(record, indent=1) + "\n")


def _origin(path: Path, record: dict) -> dict[str, Any]:
    return origin.here(Path(sys.argv[0]).stem, path.stem, "cpu" in record["device"].lower())


def publish(record: Any, path: Path, table: Callable[[Any], str]) -> None:
    """Write the table of a record beside its file, and print it. Both name this process's command."""
    path.with_suffix(".md").write_text(table(record))
    if path.exists() and (kept := json.loads(path.read_text())).get("command") != record["command"]:
        path.write_text(json.dumps(kept | {"command": record["command"]}, indent=1) + "\n")
    print(table(record))
