"""Is it worth learning which tokens to keep? The same model, data and budget; only the pooling differs.

python benchmarks/compare.py [--tasks bbc needle] [--k 8 32] [--seeds 0 1 2] [--device cuda]

Writes benchmarks/results/compare-<task>.json and .md. A run that was interrupted goes on where it stopped:
results/compare-<task>.json is written after every single training, and what stands there is not run again.
"""

import argparse
import itertools
import json
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch
from needle import Classifier, fit, predict, token_vectors
from tqdm.auto import tqdm
from variants import NEEDLE_ONLY, VARIANTS, Variant

import tasks
import train
from models import default_encoder

RESULTS = ROOT / "benchmarks" / "results"
BBC_BUDGET = ["--config", str(ROOT / "configs" / "bbc.yaml"), "--show", "0", "--overwrite_output_dir", "true"]


class PeakMemory:
    """Peak memory of a stretch of work in MiB: allocated on the GPU, or resident on the CPU (Linux)."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far

    def read(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) / 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def run_bbc(variant: Variant, k: int | float, seed: int, device: torch.device, arguments) -> dict:
    """Fine-tune the whole model with train.py."""
    words = [f"--{name}={value}" for name, value in variant.pooling.items()]
    if "initial_temperature" not in variant.pooling:
        words.append(f"--initial_temperature={variant.pooling.get('temperature', 1.0)}")
    words += [f"--k={k}", f"--seed={seed}", f"--freeze_scorer={variant.freeze_scorer}", *arguments.train_options]
    memory = PeakMemory(device)
    with tempfile.TemporaryDirectory() as folder:
        results = train.main([*BBC_BUDGET, "--output_dir", folder, *words])
    return {
        "accuracy": results["test_accuracy"],
        "f1": results["test_f1"],
        "train_seconds": results["train_runtime"],
        "documents_per_second": results["test_documents_per_second"],
        "peak_mib": memory.read(),
    }


class Needle:
    """The needle task with its token vectors in memory."""

    def __init__(self, device: torch.device):
        dataset = tasks.get_task("needle").load(tasks.DataArguments(task="needle"))
        self.classes = dataset["train"].features["label"].num_classes
        self.splits = token_vectors(dataset, str(default_encoder()), device, ROOT / "benchmarks" / ".cache")

    def __call__(self, variant: Variant, k: int | float, seed: int, device: torch.device, arguments) -> dict:
        torch.manual_seed(seed)
        train_split, test = self.splits["train"], self.splits["test"]
        classifier = Classifier(train_split.hidden_states.shape[-1], self.classes, k, variant).to(device)
        memory = PeakMemory(device)
        start = _now(device)
        fit(classifier, train_split, seed, variant.scorer_learning_rate)
        trained = _now(device)
        predictions, share = predict(classifier, test)
        end = _now(device)
        return {
            **tasks.classification_metrics(predictions.tolist(), test.labels.tolist()),
            "evidence_share": share,
            "train_seconds": trained - start,
            "documents_per_second": len(test.labels) / (end - trained),
            "peak_mib": memory.read(),
        }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def table(task: str, record: dict) -> str:
    """Markdown: a row for each variant and k, mean ± standard deviation over the seeds."""
    share = any("evidence_share" in run for run in record["runs"])
    columns = ["accuracy", "macro-F1", *(["kept tokens that are evidence"] if share else []), "training s",
               "inference documents/s", "peak MiB"]  # fmt: skip
    lines = [f"| pooling | k | {' | '.join(columns)} |", "|---|--:|" + "--:|" * len(columns)]
    rows: dict[tuple, list] = {}
    for run in record["runs"]:
        rows.setdefault((run["k"], run["variant"]), []).append(run)
    for (k, name), runs in rows.items():

        def spread(key, runs=runs):
            values = [run[key] for run in runs]
            return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"

        def mean(key, runs=runs):
            return f"{statistics.mean(run[key] for run in runs):,.1f}"

        cells = [spread("accuracy"), spread("f1"), *([spread("evidence_share")] if share else []),
                 mean("train_seconds"), mean("documents_per_second"), mean("peak_mib")]  # fmt: skip
        lines.append(f"| {name} | {k} | {' | '.join(cells)} |")
    seeds = sorted({run["seed"] for run in record["runs"]})
    lines += ["", f"Test split, mean ± standard deviation over seeds {', '.join(map(str, seeds))}. "
              f"`{record['command']}` on {record['device']}, torch {record['torch']}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=["bbc", "needle"], default=["needle", "bbc"])
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--train-options", nargs="*", default=[], help="task bbc: further words for train.py, as a=b")
    arguments = parser.parse_args()
    arguments.train_options = [f"--{word}" for word in arguments.train_options]
    device = torch.device(arguments.device)
    arguments.results.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        path = arguments.results / f"compare-{task}.json"
        record = {
            "command": shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]]),
            "device": torch.cuda.get_device_name()
            if device.type == "cuda"
            else f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "runs": json.loads(path.read_text())["runs"] if path.exists() else [],
        }
        done = {(run["variant"], run["k"], run["seed"]) for run in record["runs"]}
        plan = []
        variants = VARIANTS + (NEEDLE_ONLY if task == "needle" else [])
        for seed, k, variant in itertools.product(arguments.seeds, arguments.k, variants):
            slots = k if variant.k is None else variant.k
            shown = "all" if isinstance(slots, float) else str(slots)
            if (variant.name, shown, seed) not in done:
                done.add((variant.name, shown, seed))
                plan.append((variant, slots, shown, seed))
        run = run_bbc if task == "bbc" else Needle(device) if plan else None
        for variant, slots, shown, seed in tqdm(plan, desc=task):
            result = run(variant, slots, seed, device, arguments)
            record["runs"].append({"variant": variant.name, "k": shown, "seed": seed, **result})
            path.write_text(json.dumps(record, indent=1) + "\n")
        text = table(task, record)
        path.with_suffix(".md").write_text(text)
        print(f"\n{task}\n{text}")


if __name__ == "__main__":
    main()
