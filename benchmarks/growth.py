"""How do the time and the memory of an update grow with a document's length, k, the batch and the processes?

python benchmarks/growth.py [--updates 6]

Trains the classifier of configs/bbc.yaml with train.py, each time in new processes, on random words in documents of
one length. The figures are medians over the updates in history.jsonl but the first. One thread a process; the machine
must have nothing else to do. Writes benchmarks/results/growth.json, and a table beside it as .md.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT, CommandLine, publish, resume, save
from tqdm.auto import tqdm

BASE = {"tokens": 1024, "k": 32, "batch_size": 8, "processes": 1}
VARIED = {"tokens": (256, 512, 2048, 4096), "k": (8, 128, 512), "batch_size": (2, 4, 16), "processes": (2,)}
NAMES = {"tokens": "tokens a document", "k": "k", "batch_size": "documents a process", "processes": "processes"}
RUNS = [BASE, *(BASE | {name: value} for name, values in VARIED.items() for value in values)]


def documents(folder: Path, tokens: int, count: int) -> Path:
    """A file of `count` documents of so many tokens, of two classes."""
    path, draw = folder / "documents.jsonl", random.Random(0)
    common = ["time", "people", "year", "way", "day", "man", "world", "life", "hand", "part"]  # a token each
    with path.open("w") as file:
        for i in range(count):
            words = draw.choices(common, k=tokens - 2)  # [CLS] and [SEP] are added
            file.write(json.dumps({"text": " ".join(words), "label": str(i % 2)}) + "\n")
    return path


def measure(tokens: int, k: int, batch_size: int, processes: int, updates: int) -> dict:
    """Median seconds of an update, and the peak memory of a process in GiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "train_file": documents(folder, tokens, batch_size * processes * updates),
            "validation_file": folder / "documents.jsonl",
            "test_file": folder / "documents.jsonl",
        }
        fields = {"config": ROOT / "configs" / "bbc.yaml", **files, "k": k, "batch_size": batch_size, "epochs": 1,
                  "max_eval_samples": 2, "show": 0, "mixed_precision": "no", "output_dir": folder / "run"}  # fmt: skip
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launch * (processes > 1), str(ROOT / "train.py"),
                   *(f"--{name}={value}" for name, value in fields.items())]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        rows = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    return {
        "seconds": statistics.median(row["seconds"] for row in rows[1:]),
        "peak_memory_gib": rows[-1]["peak_memory_gib"],
    }


def table(record: dict) -> str:
    """Markdown: a row for each value of a varied field; the other fields are those of BASE."""
    runs = {key(run): run for run in record["runs"]}
    seconds = runs[key(BASE)]["seconds"]
    lines = [
        "| varied | | seconds an update | times | documents/s | peak, GiB a process |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, values in VARIED.items():
        for value in sorted({*values, BASE[name]}):
            run = runs[key(BASE | {name: value})]
            rate = run["batch_size"] * run["processes"] / run["seconds"]
            lines.append(
                f"| {NAMES[name]} | {value} | {run['seconds']:.2f} | {run['seconds'] / seconds:.2f} | "
                f"{rate:.1f} | {run['peak_memory_gib']:.2f} |"
            )
    base = ", ".join(f"{NAMES[name]} {value}" for name, value in BASE.items())
    return "\n".join(lines) + (
        f"\n\nOne of the four is varied, the others are: {base}. times: of the seconds at these. MiniLM, three layers "
        f"frozen, windows of 256 tokens, float32. `{record['command']}` on {record['device']} (one thread a process), "
        f"torch {record['torch']}.\n"
    )


def key(run: dict) -> tuple:
    return tuple(run[name] for name in BASE)


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--updates", type=int, default=6, help="of each run; the first is left out")
    arguments = parser.parse_args()
    path = arguments.results / "growth.json"
    record = resume(path, "cpu", updates=arguments.updates)
    done = {key(run) for run in record["runs"]}
    for run in tqdm([run for run in RUNS if key(run) not in done], desc="growth"):
        record["runs"].append(run | measure(**run, updates=arguments.updates))
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
