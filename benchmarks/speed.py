"""What soft top-k costs: time and memory as ratios, measured side by side.

python benchmarks/speed.py [--device cuda] [--results folder]

Batch 16, d = 256, float32, forward and backward, every operator at its defaults. All methods take turns, many times
over, and the fastest turn of each counts, so that what else the machine does hits them alike. On a CPU the fresh pages
for the gradient of the values cost every method the same, which brings ratios closer to 1; so the comparison with
torch.topk + gather is made a second time while the process keeps the memory that it frees, as a GPU's allocator does.
Writes benchmarks/results/speed.json after every (n, k), then .md.
"""

import argparse
import ctypes
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from literal import literal_successive_halving
from memory import PeakMemory
from record import resume, save
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm.auto import tqdm

from shtopk import compiled, hard_topk, iterative_topk, successive_halving_topk

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, DEPTH, THREADS, TURNS = 16, 256, 2, 20
SHAPES = [(1024, 8), (1024, 128), (4096, 512), (16384, 2), (16384, 128), (16384, 2048)]
SHORT = [(16, 2), (64, 2), (64, 32), (256, 2), (256, 16)]
LARGEST = 2**26  # k * n * rows at which iterative top-k runs all rows at once; beyond, row by row


def gather(values: Tensor, scores: Tensor, k: int) -> Tensor:
    """Hard top-k as one writes it without a library. The scores learn nothing."""
    best = scores.topk(k, dim=-1).indices
    return values.gather(1, best.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def halving(values: Tensor, scores: Tensor, k: int, **options) -> Tensor:
    return successive_halving_topk(values, scores, k, **options).values


OURS, HARD, TENSORS = "successive halving", "torch.topk + gather", "not compiled"
LIBRARY = compiled.LIBRARY
METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    OURS: halving,
    HARD: gather,
    "hard_topk, gated": lambda values, scores, k: hard_topk(values, scores, k, gradient="gate").values,
    "literal Algorithm 2": literal_successive_halving,
    "iterative top-k": lambda values, scores, k: iterative_topk(values, scores, k).values,
    "values.sum(1)": lambda values, scores, k: values.sum(1),
    "softmax, T = 1/16": partial(halving, boost="softmax"),
    "softmax, T = 4": partial(halving, boost="softmax", temperature=4.0),
    TENSORS: halving,
}
MEMORY_KEPT = (OURS, HARD)


def step(method: str, values: Tensor, scores: Tensor, k: int) -> None:
    """Forward and backward."""
    compiled.LIBRARY = None if method == TENSORS else LIBRARY
    values.grad = scores.grad = None
    if method != "iterative top-k" or scores.numel() * k <= LARGEST:
        METHODS[method](values, scores, k).sum().backward()
        return
    for row, row_scores in zip(values.split(1), scores.split(1), strict=True):
        METHODS[method](row, row_scores, k).sum().backward()


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


def inputs(n: int, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    values = torch.randn(BATCH, n, DEPTH, device=device, requires_grad=True)
    return values, torch.randn(BATCH, n, device=device, requires_grad=True)


def measure_memory(method: str, n: int, k: int, device: str) -> dict:
    values, scores = inputs(n, device)
    step(method, values, scores, k)  # warm-up
    values.grad = scores.grad = None
    memory = PeakMemory(torch.device(device))
    step(method, values, scores, k)
    peak = memory.read()
    by_row = method == "iterative top-k" and scores.numel() * k > LARGEST
    rows = slice(1) if by_row else slice(None)
    saved = saved_bytes(method, values[rows], scores[rows], k) * (BATCH if by_row else 1)
    return {"method": method, "n": n, "k": k, "peak_mib": peak, "saved_bytes": saved}


def measure_time(runs: list[dict], device: str, key: str) -> None:
    """Of several methods at one (n, k), added to their runs under this key, in seconds."""
    n, k = runs[0]["n"], runs[0]["k"]
    values, scores = inputs(n, device)
    turns: list[list[float]] = [[] for _ in runs]
    for turn in range(TURNS):
        for run, its_turns in zip(runs, turns, strict=True):
            if turn > 1 and its_turns[0] > 2:  # two turns of what takes seconds tell enough
                continue
            once = partial(step, run["method"], values, scores, k)
            timer = Timer("once()", globals={"once": once}, num_threads=THREADS)
            its_turns.append(timer.blocked_autorange(min_run_time=0.02).median)
    for run, its_turns in zip(runs, turns, strict=True):
        run[key] = min(its_turns)


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed memory back to the kernel (elsewhere: nothing)."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max = -1, -4  # of mallopt, in malloc.h
        ctypes.CDLL(None).mallopt(trim_threshold, 2**31 - 1)
        ctypes.CDLL(None).mallopt(mmap_max, 0)


def table(record: dict) -> str:
    """Markdown: how many times the cost of the others, and the bytes; then what boost and temperature cost."""
    ours_and_hard = (OURS, "hard_topk, gated")
    boosts = [method for method in METHODS if method.startswith("softmax")]
    others = [method for method in METHODS if method not in (OURS, TENSORS, *boosts)]
    lines = [f"| n | k | ms | {' | '.join(f'/ {m}' for m in others)} "
             "| saved, B a token | of hard | peak, MiB | of hard |",
             "|--:|--:|--:|" + "--:|" * (len(others) + 4)]  # fmt: skip
    cells = {(run["n"], run["k"], run["method"]): run for run in record["runs"]}
    for n, k in SHAPES:
        ours = cells[n, k, OURS]
        ratios = [f"{ours['seconds'] / cells[n, k, m]['seconds']:.2g}" for m in others]
        saved = [f"{cells[n, k, m]['saved_bytes'] / BATCH / n:.0f}" for m in ours_and_hard]
        peak = [f"{cells[n, k, m]['peak_mib']:.0f}" for m in ours_and_hard]
        lines.append(f"| {n} | {k} | {1e3 * ours['seconds']:.1f} | {' | '.join(ratios + saved + peak)} |")
    lines += [
        "",
        f"Time of successive halving, forward and backward, divided by that of each other way; batch {BATCH}, d = "
        f"{DEPTH}, float32. Saved for backward: beyond the values themselves, {4 * DEPTH} B a token; peak: of a step, "
        "the gradient of the values included; of hard: of gated hard top-k.",
        "",
        f"| n | k | relative, T = 1/16 | {' | '.join(boosts)} | relative, {TENSORS} | relative, freed memory kept |",
        "|--:|--:|--:|" + "--:|" * (len(boosts) + 2),
    ]
    for n, k in SHAPES:
        hard = cells[n, k, HARD]
        ratios = [cells[n, k, method]["seconds"] / hard["seconds"] for method in (OURS, *boosts, TENSORS)]
        ratios.append(cells[n, k, OURS]["seconds_memory_kept"] / hard["seconds_memory_kept"])
        lines.append(f"| {n} | {k} | {' | '.join(f'{ratio:.2g}' for ratio in ratios)} |")
    lines += [
        "",
        f"Time divided by that of {HARD}: `successive_halving_topk`'s default, `TopKPooling`'s in eval mode and "
        "at the start of training; the first by tensor operations alone, as on a GPU or where no C compiler was found; "
        "and once more where the process keeps the memory that it frees.",
        "",
        f"| n | k | µs | / {HARD} | / hard_topk, gated | / iterative top-k |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for n, k in SHORT:
        ours = cells[n, k, OURS]["seconds"]
        ratios = [
            f"{ours / cells[n, k, method]['seconds']:.2g}" for method in (HARD, "hard_topk, gated", "iterative top-k")
        ]
        lines.append(f"| {n} | {k} | {1e6 * ours:.0f} | {' | '.join(ratios)} |")
    return "\n".join(lines) + (
        "\n\nThe first again, for short inputs. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if LIBRARY is None:
        sys.exit("shtopk was installed without a C compiler; install one, then: make clean env")
    torch.set_num_threads(THREADS)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "speed.json"
    record = resume(path, arguments.device)

    def at(n: int, k: int) -> list[dict]:
        return [run for run in record["runs"] if (run["n"], run["k"]) == (n, k)]

    for n, k in tqdm(SHAPES + SHORT, desc="memory and time"):
        if not at(n, k):
            runs = [measure_memory(method, n, k, arguments.device) for method in METHODS]
            measure_time(runs, arguments.device, "seconds")
            record["runs"] += runs
            save(record, path)
    keep_freed_memory()
    for n, k in tqdm(SHAPES, desc="time, freed memory kept"):
        runs = [run for run in at(n, k) if run["method"] in MEMORY_KEPT]
        if "seconds_memory_kept" not in runs[0]:
            measure_time(runs, arguments.device, "seconds_memory_kept")
            save(record, path)
    path.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
