"""Measure anew what is out of date, part by part: `make results`.

python benchmarks/renew.py [needle bbc ...] [--plan]

Says beforehand how long each part takes (parts.py), then measures one after the other into a folder of its own,
runs/results/PART. Only when a part is complete its files take the place of the old ones in benchmarks/results/. So
nothing is lost if it fails, and a part that was stopped goes on where it was, if the code is the same. What needs a
GPU or data that is not here is named and left out. --plan: measure nothing.
"""

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from parts import NAMES, PARTS, Part
from sources import ROOT
from stale import RESULTS, in_words, minutes, stale, why

STAGING = ROOT / "runs" / "results"
CACHE = ROOT / "benchmarks" / ".cache"
RFCS = ROOT / "data" / "rfc"
KINDS = (".md", ".csv", ".png")  # of files beside the JSON
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}  # of glibc


def lacks(part: Part) -> str | None:
    """What a part needs and is not here, in a few words."""
    if part.needs == "gpu" and not torch.cuda.is_available():
        return "needs a GPU"
    if part.needs == "rfcs" and not (RFCS.is_dir() and any(RFCS.iterdir())):
        return "needs the RFCs; make rfcs fetches them"
    for file in part.reads:
        if why(maker(file), file):
            return f"takes its settings from {file}.json, which is out of date; make results PARTS={maker(file).name}"
    return None


def maker(file: str) -> Part:
    return next(part for part in PARTS if file in part.files)


def measure(part: Part) -> str | None:
    """Run the commands of a part and put its files in their place. Returns why not, None if all went well."""
    folder = STAGING / part.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")) as lock:
        if lock is None:
            return "is being measured by another process"
        prepare(part, folder)
        if failed := run_commands(part, folder, lock):
            return failed
        missing = [file for file in part.files if not staged(folder, file).exists()]
        if missing:
            return f"made no {', '.join(missing)}"
        put_in_place(part, folder)
    reasons = stale(part)
    return f"was measured, and is out of date again: {next(iter(reasons.values()))}" if reasons else None


def run_commands(part: Part, folder: Path, lock: int) -> str | None:
    """Run the commands of a part, with their results in a folder. Returns what failed, None if nothing did."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": str(part.threads)} if part.threads else {}
    environment |= KEEP_MEMORY if part.keeps_memory else {}
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | environment
    if len(part.commands) > 1 or part.keeps_memory:  # no command alone makes the record
        environment["MADE_BY"] = f"make results PARTS={part.name}"
    for command in part.commands:
        script, *words = shlex.split(command)
        words = [sys.executable, f"benchmarks/{script}", f"--results={folder}", *words]
        if code := run(words, environment, lock):
            return f"failed with exit code {code}; what it has measured stays in {folder}: {command}"
    return None


def staged(folder: Path, file: str) -> Path:
    return folder / f"{file.split('/')[-1]}.json"


def prepare(part: Part, folder: Path) -> None:
    """Let a part go on from what is up to date: of itself, in the folder or in its place, and what it reads."""
    for file in part.files:
        path = staged(folder, file)
        if path.exists() and why(part, file, path):
            path.rename(path.with_suffix(".old"))  # begun with other code
        if not path.exists() and not why(part, file):
            shutil.copy(RESULTS / f"{file}.json", path)
    for file in part.reads:
        shutil.copy(RESULTS / f"{file}.json", staged(folder, file))


def put_in_place(part: Part, folder: Path) -> None:
    """The JSON last: until then the part counts as out of date, and another call ends what this one began."""
    target = (RESULTS / part.files[0]).parent
    for path in [*tables(folder), *(staged(folder, file) for file in part.files)]:
        aside = target / f".{path.name}.partial"
        shutil.copy(path, aside)
        aside.replace(target / path.name)
    shutil.rmtree(folder)


def tables(folder: Path) -> list[Path]:
    """What a part has made for the pages, beside its JSON."""
    return [path for path in sorted(folder.iterdir()) if path.suffix in KINDS]


def run(words: list[str], environment: dict[str, str], lock: int) -> int:
    """The exit code of a command, which ends with this process."""
    process = subprocess.Popen(words, cwd=ROOT, env=environment, pass_fds=[lock])
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """A lock that this process holds, and what it starts; None while another has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def is_busy() -> bool:
    """Whether something else computes: in all of ten looks, a process beside this one."""
    try:
        running = []
        for _ in range(10):
            running.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]))
            time.sleep(0.1)
    except OSError:  # no Linux
        return False
    return min(running) > 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--plan", action="store_true", help="say what would be measured, and how long it takes")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in NAMES]:
        parser.error(f"expected parts of {', '.join(NAMES)}; got {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = [part for part in PARTS if part.name in (arguments.parts or NAMES)]
    plan = [part for part in chosen if stale(part)]
    refused = {part: reason for part in plan if not set(part.reads) & files(plan) and (reason := lacks(part))}
    for part in plan:
        alone = ", with nothing else to do for the machine" if part.timed else ""
        print(f"{part.name}: {refused.get(part) or f'about {in_words(minutes(part))}{alone}'}")
    total = sum(minutes(part) for part in plan if part not in refused)
    print(f"in all about {in_words(total)}" if total else "nothing to measure", flush=True)
    if CACHE.is_dir() and total:
        print(
            "benchmarks/.cache keeps token vectors and a base model of earlier runs; remove it to make those anew, too"
        )
    if arguments.plan:
        return
    failed = {}
    for part in plan:
        if reason := lacks(part):
            failed[part] = reason
        else:
            if part.timed and is_busy():
                print(f"{part.name}: something else is running here, so its times will be worth little", flush=True)
            if reason := measure(part):
                failed[part] = reason
        print(f"{part.name}: {failed.get(part, 'done')}", flush=True)
    if any(part not in refused for part in failed):
        sys.exit(1)


def files(parts: list[Part]) -> set[str]:
    return {file for part in parts for file in part.files}


if __name__ == "__main__":
    main()
