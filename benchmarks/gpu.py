"""All that is measured on a GPU, within a few minutes: `make gpu`.

python benchmarks/gpu.py [--minutes 9] [--parts tests speed ...] [--device cuda] [--results folder] [--kit folder]

The parts run one after the other, each with a limit of its own, at which it and all that it started is stopped; its
figures are on disk before the next begins, and a part that fails does not keep the next from it. Started again, the
parts go on where they stopped. Where the folder of `make gpu-kit` is there, packages, weights and texts come from it,
so that the machine needs no network. Writes gpu.json, gpu.md and a log of each part into the results' folder, and
after each part all of that folder into one file beside it, <folder>.tar.gz, to take home. With --device cpu all parts
run with tiny shapes, to try them out.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import kit
import origin
from sources import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
GRACE = 10  # seconds between asking a part to end and ending it
LAST_LINES = 15
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Part:
    """A piece of work with its share of the time.

    Attributes:
        words: of its command, made of the seconds that it may take and the options of this script.
        share: of the whole; the last part has all that is left as well.
        figures: files in the results' folder.
    """

    name: str
    what: str
    share: float
    words: Callable[[float, argparse.Namespace], list[str]]
    figures: tuple[str, ...]


def script(name: str, *words: str) -> Callable[[float, argparse.Namespace], list[str]]:
    """A benchmark that knows how long it may take, and is left some of it to end."""

    def command(seconds: float, arguments: argparse.Namespace) -> list[str]:
        options = [
            f"--seconds={seconds - min(15, 0.3 * seconds):.0f}",
            f"--device={arguments.device}",
            f"--results={arguments.results}",
        ]
        return [f"benchmarks/{name}.py", *words, *options]

    return command


def tests(seconds: float, arguments: argparse.Namespace) -> list[str]:
    """With every name, so that the log of a run that was stopped says which tests were not seen."""
    side_by_side = ["-n", "auto"] if arguments.device != "cpu" and find_spec("xdist") else []
    return ["-m", "pytest", "tests/shtopk/test_cuda.py", "tests/shtopk/test_kernels.py", "-m", "not slow", "-rs",
            "-vv", *side_by_side, "-p", "no:cacheprovider", f"--junitxml={arguments.results}/tests.xml"]  # fmt: skip


def sanitizer(seconds: float, arguments: argparse.Namespace) -> list[str]:
    return ["-m", "pytest", "tests/shtopk/test_cuda.py", "-m", "slow", "-rs", "-p", "no:cacheprovider",
            f"--junitxml={arguments.results}/sanitizer.xml"]  # fmt: skip


def speed(seconds: float, arguments: argparse.Namespace) -> list[str]:
    tiny = ["--shapes", "128x32", "64x8"] if arguments.device == "cpu" else []
    return script("speed_gpu", *tiny)(seconds, arguments)


def paper(seconds: float, arguments: argparse.Namespace) -> list[str]:
    return script("paper", "--grid", "small" if arguments.device == "cpu" else "full")(seconds, arguments)


def rfc(seconds: float, arguments: argparse.Namespace) -> list[str]:
    name = "rfc-cpu" if arguments.device == "cpu" else "rfc-gpu"
    return script("rfc_gpu", f"--run=runs/{name}")(seconds, arguments)


PARTS = (
    Part("tests", "CUDA gives what the CPU gives", 0.2, tests, ("tests.xml",)),
    Part("speed", "time, memory, launches and waits of every method", 0.25, speed, ("speed-gpu.md",)),
    Part("sanitizer", "memcheck and racecheck of the kernels", 0.09, sanitizer, ("sanitizer.xml",)),
    Part("finetune", "fine-tuning, pooled between layers and not", 0.26, script("finetune_gpu"), ("finetune-gpu.md",)),
    Part("paper", "the paper's grid, forward", 0.12, paper, ("paper-*.md", "paper-*.png")),
    Part("rfc", "configs/rfc.yaml for as long as is left", 0.08, rfc, ("rfc-gpu.md",)),
)


def run(part: Part, words: list[str], seconds: float, log: Path, environment: dict[str, str]) -> dict:
    """Run a part's command with this Python; what became of it. Its process group ends with it."""
    start = time.monotonic()
    with log.open("w") as file:
        file.write(f"$ {shlex.join(['python', *words])}\n")
        file.flush()
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=file,
                                   stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            process.wait(max(1.0, seconds))
            outcome = "done" if process.returncode == 0 else f"failed with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            outcome = "stopped at its limit"
            _signal(process, signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                outcome += ", killed"
        except BaseException:
            _signal(process, signal.SIGTERM)
            raise
        finally:
            _signal(process, signal.SIGKILL)  # whatever it left running
            process.wait()
    lines = [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return {
        "part": part.name,
        "command": shlex.join(["python", *words]),
        "limit_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - start, 1),
        "outcome": outcome,
        "last_lines": lines[-LAST_LINES:] if outcome != "done" else lines[-1:],
    }


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # it leads a group of its own


FACTS = """
import json, sys, torch
try:
    import triton
    version = triton.__version__
except ImportError:
    version = None
device = sys.argv[1]
print(json.dumps({
    "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
    "torch": torch.__version__, "cuda": torch.version.cuda, "triton": version,
    "python": sys.version.split()[0],
}))
"""


def facts(device: str, environment: dict[str, str]) -> dict:
    """The device and the versions; exits with one line where there is no such device."""
    done = subprocess.run([sys.executable, "-c", FACTS, device], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"expected a {device} device and torch: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def revision() -> str:
    """The git revision, with a + where the code is not as it has it."""
    head, clean = origin.revision()
    return "unknown, without git" if head is None else head + "+" * (not clean)


def table(record: dict) -> str:
    """Markdown: what ran on which device, how it ended, and what did not run."""
    ran = {one["part"]: one for one in record["parts"]}
    lines = ["| part | device | revision | seconds, of | how it ended | figures |", "|---|---|---|--:|---|---|"]
    for part in PARTS:
        if one := ran.get(part.name):
            found = ", ".join(f"[{name}]({name})" for name in one["figures"]) or "none"
            took = f"{one['seconds']:.0f}, {one['limit_seconds']:.0f}"
            cells = [f"{part.name}: {part.what}", one["device"], one["revision"], took, one["outcome"], found]
            lines.append(f"| {' | '.join(cells)} |")
    missing = [f"{part.name} ({part.what})" for part in PARTS if part.name not in ran]
    partial = [one["part"] for one in record["parts"] if one["outcome"] != "done"]
    versions = ", ".join(f"{name} {record[name]}" for name in ("torch", "cuda", "triton", "python"))
    lines += ["", f"On {record['device']}: {versions}. `{record['command']}`", ""]
    lines.append(f"Not run: {', '.join(missing)}." if missing else "Every part was run.")
    if partial:
        lines.append(f"Not to the end: {', '.join(partial)}; see their logs.")
    return "\n".join(lines) + "\n"


def save(record: dict, folder: Path) -> None:
    path = folder / "gpu.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    record["measured"] = origin.measured(record, before, origin.here("gpu", "gpu", cpu=record["device"] == "CPU"))
    path.write_text(json.dumps(record, indent=1) + "\n")
    (folder / "gpu.md").write_text(table(record))


def begin(folder: Path, current: dict) -> dict:
    """The record in a folder, to be continued; exits with one line if it is of another device or torch."""
    path = folder / "gpu.json"
    record = json.loads(path.read_text()) if path.exists() else {"parts": [], "measured": []}
    for name in ("device", "torch"):
        if record.get(name, current[name]) != current[name]:
            sys.exit(f"{folder} has figures of {name} {record[name]}, this is {current[name]}; name another --results")
    return record | current


def main() -> None:
    end = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="by default all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument(
        "--kit", type=Path, default=ROOT / "gpu-kit", help="folder of make gpu-kit; used if it is there"
    )
    arguments = parser.parse_args()
    end += 60 * arguments.minutes
    arguments.results = arguments.results.resolve()
    arguments.results.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ENVIRONMENT
    if arguments.kit.is_dir():
        environment |= kit.unpack(arguments.kit)
    record = begin(arguments.results, facts(arguments.device, environment))
    record["command"] = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    chosen = [part for part in PARTS if arguments.parts is None or part.name in arguments.parts]
    for i, part in enumerate(chosen):
        left = end - time.monotonic() - GRACE
        seconds = left * part.share / sum(later.share for later in chosen[i:])  # what earlier parts left over as well
        print(f"{part.name}: {seconds:.0f} s at most, {left:.0f} s left", flush=True)
        words = part.words(seconds, arguments)
        one = run(part, words, seconds, arguments.results / f"{part.name}.log", environment)
        figures = [path.name for name in part.figures for path in sorted(arguments.results.glob(name))]
        one |= {"device": record["device"], "revision": revision(), "figures": figures}
        record["parts"] = list(({other["part"]: other for other in record["parts"]} | {part.name: one}).values())
        save(record, arguments.results)
        shutil.make_archive(str(arguments.results), "gztar", arguments.results.parent, arguments.results.name)
        print(f"{part.name}: {one['outcome']}, {one['seconds']:.0f} s; {' '.join(one['last_lines'][-1:])}", flush=True)
    print(table(record))


if __name__ == "__main__":
    main()
