"""What soft top-k costs: time and memory as ratios, measured side by side.

python benchmarks/speed.py [--device cuda] [--results folder]

Batch 16, d = 256, float32, forward and backward, every operator at its defaults. All methods take turns, several times
over, so that what else the machine does hits them alike. Writes benchmarks/results/speed.json and .md.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from literal import literal_successive_halving
from memory import PeakMemory
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm.auto import tqdm

from shtopk import hard_topk, iterative_topk, successive_halving_topk

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, DEPTH, THREADS, TURNS = 16, 256, 2, 5
SHAPES = [(1024, 8), (1024, 128), (4096, 512), (16384, 2), (16384, 128), (16384, 2048)]
LARGEST = 2**26  # k * n * rows at which iterative top-k runs all rows at once; beyond, row by row


def gather(values: Tensor, scores: Tensor, k: int) -> Tensor:
    """Hard top-k as one writes it without a library. The scores learn nothing."""
    best = scores.topk(k, dim=-1).indices
    return values.gather(1, best.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "successive halving": lambda values, scores, k: successive_halving_topk(values, scores, k).values,
    "torch.topk + gather": gather,
    "hard_topk, gated": lambda values, scores, k: hard_topk(values, scores, k, gradient="gate").values,
    "literal Algorithm 2": literal_successive_halving,
    "iterative top-k": lambda values, scores, k: iterative_topk(values, scores, k).values,
    "values.sum(1)": lambda values, scores, k: values.sum(1),
}


def step(method: str, values: Tensor, scores: Tensor, k: int) -> None:
    """Forward and backward."""
    values.grad = scores.grad = None
    all_at_once = method != "iterative top-k" or scores.numel() * k <= LARGEST
    for rows in torch.arange(len(scores)).split(len(scores) if all_at_once else 1):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        METHODS[method](values[part], scores[part], k).sum().backward()


def saved_bytes(method: str, values: Tensor, scores: Tensor, k: int) -> int:
    """Bytes that autograd keeps for backward, the input itself not counted."""
    given = {values.untyped_storage().data_ptr(), scores.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = METHODS[method](values, scores, k)  # alive until counted, so that no address is used twice
    total = sum(kept.values())
    del out
    return total


def measure(n: int, k: int, device: str) -> list[dict]:
    torch.manual_seed(0)
    values = torch.randn(BATCH, n, DEPTH, device=device, requires_grad=True)
    scores = torch.randn(BATCH, n, device=device, requires_grad=True)
    found = []
    for method in METHODS:
        step(method, values, scores, k)  # warm-up
        values.grad = scores.grad = None
        memory = PeakMemory(torch.device(device))
        step(method, values, scores, k)
        large = method == "iterative top-k" and scores.numel() * k > LARGEST
        peak, few = memory.read(), slice(1) if large else slice(None)
        saved = saved_bytes(method, values[few], scores[few], k) * (BATCH if large else 1)
        found.append({"method": method, "n": n, "k": k, "turns": [], "peak_mib": peak, "saved_bytes": saved})
    for _ in range(TURNS):
        for run in found:
            once = partial(step, run["method"], values, scores, k)
            timer = Timer("once()", globals={"once": once}, num_threads=THREADS)
            if len(run["turns"]) < 2 or run["turns"][0] < 2:  # two turns of what takes seconds tell enough
                run["turns"].append(timer.blocked_autorange(min_run_time=0.2).median)
    for run in found:
        run["seconds"] = statistics.median(run["turns"])
    return found


def table(record: dict) -> str:
    """Markdown: how many times the cost of successive halving, and the bytes."""
    others = [method for method in METHODS if method != "successive halving"]
    lines = [f"| n | k | ms | {' | '.join(f'/ {m}' for m in others)} | saved bytes per token | of gated hard top-k |",
             "|--:|--:|--:|" + "--:|" * (len(others) + 2)]  # fmt: skip
    cells = {(run["n"], run["k"], run["method"]): run for run in record["runs"]}
    for n, k in SHAPES:
        ours = cells[n, k, "successive halving"]
        ratios = [f"{ours['seconds'] / cells[n, k, m]['seconds']:.2g}" for m in others]
        saved = [
            f"{cells[n, k, m]['saved_bytes'] / BATCH / n:.0f}" for m in ("successive halving", "hard_topk, gated")
        ]
        lines.append(f"| {n} | {k} | {1e3 * ours['seconds']:.1f} | {' | '.join(ratios + saved)} |")
    return "\n".join(lines) + (
        f"\n\nTime of successive halving, forward and backward, divided by that of each other way; batch {BATCH}, "
        f"d = {DEPTH}, float32. Saved for backward beyond the values themselves ({4 * DEPTH} bytes a token). "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    on_gpu = arguments.device.startswith("cuda")
    record = {
        "command": " ".join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU, {THREADS} threads",
        "torch": torch.__version__,
        "runs": [run for n, k in tqdm(SHAPES) for run in measure(n, k, arguments.device)],
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "speed.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
