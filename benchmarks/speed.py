"""What soft top-k costs: time and memory as ratios, measured side by side.

python benchmarks/speed.py [--device cuda] [--results folder]

Batch 16, d = 256, float32, forward and backward. "Successive halving" alone is the sharp choice, "relative" at 1/16;
the other operators are at their defaults. All methods take many turns and the
fastest turn of each counts, so that other load on the machine hits them alike. On a CPU, new pages for the gradient
of the values cost every method the same, which brings ratios closer to 1, and which method reuses pages is luck. So
all is timed a second time while the process keeps the memory that it frees, as a GPU's allocator does. A fastest turn
does not say how long others take: on a CPU a hundred single steps are timed as well, then a hundred in a memory that
another process has left in small pieces, for which that one takes nearly all of it for a while. Writes
benchmarks/results/speed.json after every (n, k), then .md. With --default-only: the first times alone, of the default
temperature and of hard top-k, into speed-default.json.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from timeit import timeit

import speed_gpu
import torch
from literal import gather, literal_successive_halving
from memory import FragmentedMemory, saved_bytes
from record import CommandLine, publish, resume, save
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm.auto import tqdm

from shtopk import hard_topk, iterative_topk, successive_halving_topk
from shtopk.backends import native
from shtopk.backends.memory import release
from shtopk.rule import Boost
from shtopk.training.memory import PeakMemory

BATCH, DEPTH, THREADS, TURNS = 16, 256, 2, 20
SHAPES = [(1024, 8), (1024, 128), (4096, 512), (16384, 2), (16384, 128), (16384, 2048)]
SHORT = [(16, 2), (64, 2), (64, 32), (256, 2), (256, 16)]
EVEN, STEPS, TAKEN = [(4096, 512), (16384, 128)], 100, 10  # pieces of memory are taken every 10 steps
LARGEST = 2**26  # k * n * rows at which iterative top-k runs all rows at once; beyond, row by row


def halving(values: Tensor, scores: Tensor, k: int, temperature: float, boost: Boost = "softmax") -> Tensor:
    return successive_halving_topk(values, scores, k, temperature=temperature, boost=boost).values


OURS, HARD, GATED, TENSORS = "successive halving", "torch.topk + gather", "hard_topk, gated", "not in C"
ITERATIVE, DEFAULT = "iterative top-k", "softmax, T = 1"
LIBRARY = native.LIBRARY
METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    OURS: partial(halving, temperature=1 / 16, boost="relative"),
    HARD: gather,
    GATED: lambda values, scores, k: hard_topk(values, scores, k, gradient="gate").values,
    "literal Algorithm 2": literal_successive_halving,
    ITERATIVE: lambda values, scores, k: iterative_topk(values, scores, k).values,
    "values.sum(1)": lambda values, scores, k: values.sum(1),
    "softmax, T = 1/16": partial(halving, temperature=1 / 16),
    DEFAULT: partial(halving, temperature=1.0),
    "softmax, T = 4": partial(halving, temperature=4.0),
    TENSORS: partial(halving, temperature=1 / 16, boost="relative"),
}
AS_IT_IS, IN_PIECES = "as it is", "in small pieces"
MEASURES = ("median", "90 %", "99 %")
MEMORY_KEPT = (OURS, HARD, GATED, "literal Algorithm 2", ITERATIVE, "values.sum(1)")


def step(method: str, values: Tensor, scores: Tensor, k: int) -> None:
    """Forward and backward."""
    values.grad = scores.grad = None
    native.LIBRARY = None if method == TENSORS else LIBRARY
    try:
        _step(method, values, scores, k)
    finally:
        native.LIBRARY = LIBRARY


def _step(method: str, values: Tensor, scores: Tensor, k: int) -> None:
    if method != ITERATIVE or scores.numel() * k <= LARGEST:
        METHODS[method](values, scores, k).sum().backward()
        return
    for row, row_scores in zip(values.split(1), scores.split(1), strict=True):
        METHODS[method](row, row_scores, k).sum().backward()


def inputs(n: int, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    values = torch.randn(BATCH, n, DEPTH, device=device, requires_grad=True)
    return values, torch.randn(BATCH, n, device=device, requires_grad=True)


def measure_memory(method: str, n: int, k: int, device: str) -> dict:
    values, scores = inputs(n, device)
    step(method, values, scores, k)  # warm-up
    values.grad = scores.grad = None
    release()
    memory = PeakMemory(torch.device(device))
    step(method, values, scores, k)
    peak = memory.read()
    by_row = method == ITERATIVE and scores.numel() * k > LARGEST
    rows = slice(1) if by_row else slice(None)
    saved = saved_bytes(lambda: METHODS[method](values[rows], scores[rows], k), values, scores)
    return {"method": method, "n": n, "k": k, "peak_mib": peak, "saved_bytes": saved * (BATCH if by_row else 1)}


def measure_time(runs: list[dict], device: str, key: str) -> None:
    """Time several methods at one (n, k) in turns; each run gets its seconds under `key`."""
    n, k = runs[0]["n"], runs[0]["k"]
    values, scores = inputs(n, device)
    turns: list[list[float]] = [[] for _ in runs]
    for turn in range(TURNS):
        for run, seconds in zip(runs, turns, strict=True):
            if turn > 1 and seconds[0] > 2:  # two turns are enough for slow methods
                continue
            once = partial(step, run["method"], values, scores, k)
            timer = Timer("once()", globals={"once": once}, num_threads=THREADS)
            seconds.append(timer.blocked_autorange(min_run_time=0.02).median)
    for run, seconds in zip(runs, turns, strict=True):
        run[key] = min(seconds)


def single_steps(n: int, k: int, pieces: FragmentedMemory | None) -> list[dict]:
    """Time steps one by one, the methods in turns, each with the release of its gradients."""
    values, scores = inputs(n, "cpu")
    seconds: dict[str, list[float]] = {method: [] for method in (OURS, HARD, GATED)}

    def once(method: str) -> None:
        step(method, values, scores, k)
        values.grad = scores.grad = None

    for method in seconds:  # warm-up
        once(method)
    for turn in range(STEPS):
        if pieces is not None and turn % TAKEN == 0:
            pieces.take()
        for method, times in seconds.items():
            times.append(timeit(partial(once, method), number=1))
    runs = []
    for method, times in seconds.items():
        measures = dict(zip(MEASURES, Tensor(times).quantile(Tensor([0.5, 0.9, 0.99])).tolist(), strict=True))
        runs.append({"n": n, "k": k, "method": method, **measures, "mean": sum(times) / STEPS})
    return runs


def measure_evenness(memory: str) -> list[dict]:
    with FragmentedMemory() if memory == IN_PIECES else nullcontext() as pieces:
        return [{"memory": memory, **run} for n, k in EVEN for run in single_steps(n, k, pieces)]


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed memory back to the kernel (elsewhere: nothing)."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max = -1, -4  # of mallopt, in malloc.h
        ctypes.CDLL(None).mallopt(trim_threshold, 2**31 - 1)
        ctypes.CDLL(None).mallopt(mmap_max, 0)


Cells = dict[tuple[int, int, str], dict]


def cells_of(record: dict) -> Cells:
    """(n, k, method) -> the run."""
    return {(run["n"], run["k"], run["method"]): run for run in record["runs"]}


def head(columns: list[str]) -> list[str]:
    return [f"| n | k | {' | '.join(columns)} |", "|--:|--:|" + "--:|" * len(columns)]


def row(n: int, k: int, columns: list[str]) -> str:
    return f"| {n} | {k} | {' | '.join(columns)} |"


def ratios(cells: Cells, n: int, k: int, methods: list[str], key: str) -> list[str]:
    """Our time in units of the others'."""
    return [f"{cells[n, k, OURS][key] / cells[n, k, method][key]:.2g}" for method in methods]


def times(cells: Cells, key: str) -> list[str]:
    """Lines of a table: milliseconds, and these divided by those of the others."""
    others = [method for method in MEMORY_KEPT if method != OURS]
    lines = head(["ms", *(f"/ {method}" for method in others)])
    for n, k in SHAPES:
        lines.append(row(n, k, [f"{1e3 * cells[n, k, OURS][key]:.1f}", *ratios(cells, n, k, others, key)]))
    return lines


def measured(record: dict) -> str:
    return f"`{record['command']}` on {record['device']}, torch {record['torch']}."


def summary(record: dict) -> str:
    """Markdown for the README."""
    return "\n".join(times(cells_of(record), "seconds_memory_kept")) + (
        f"\n\nTime of successive halving, forward and backward, divided by that of each other way; batch {BATCH}, d = "
        f"{DEPTH}, float32; the process keeps the memory that it frees. {measured(record)}\n"
    )


def table(record: dict) -> str:
    """Markdown: ratios of time, twice; bytes; other boosts and temperatures, and without C; short inputs."""
    cells = cells_of(record)
    measured_ones = {run["method"] for run in record["runs"]}
    boosts = [method for method in METHODS if method.startswith("softmax") and method in measured_ones]
    lines = [
        *times(cells, "seconds"),
        "",
        f"Time of successive halving, forward and backward, divided by that of each other way; batch {BATCH}, d = "
        f"{DEPTH}, float32.",
        "",
        *times(cells, "seconds_memory_kept"),
        "",
        "The same where the process keeps the memory that it frees.",
        "",
        *head(["saved, B a token", "of hard", "peak, MiB", "of hard"]),
    ]
    for n, k in SHAPES:
        saved = [f"{cells[n, k, method]['saved_bytes'] / BATCH / n:.0f}" for method in (OURS, GATED)]
        peak = [f"{max(0, cells[n, k, method]['peak_mib']):.0f}" for method in (OURS, GATED)]
        lines.append(row(n, k, saved + peak))
    lines += [
        "",
        f"Saved for backward: beyond the values themselves, {4 * DEPTH} B a token; peak: of a step, the gradient of "
        "the values included; of hard: of gated hard top-k.",
        "",
        *head(["relative, T = 1/16", *boosts, f"relative, {TENSORS}"]),
    ]
    for n, k in SHAPES:
        hard = cells[n, k, HARD]["seconds"]
        lines.append(row(n, k, [f"{cells[n, k, way]['seconds'] / hard:.2g}" for way in (OURS, *boosts, TENSORS)]))
    lines += [
        "",
        f"Time divided by that of {HARD}: two sharp choices; the default, T = 1; a softer one; and the first by "
        "tensor operations alone, as where no C compiler was found.",
        "",
        *head(["µs", *(f"/ {method}" for method in (HARD, GATED, ITERATIVE))]),
    ]
    for n, k in SHORT:
        us = f"{1e6 * cells[n, k, OURS]['seconds']:.0f}"
        lines.append(row(n, k, [us, *ratios(cells, n, k, [HARD, GATED, ITERATIVE], "seconds")]))
    return "\n".join(lines) + f"\n\nThe first again, for short inputs. {measured(record)}\n" + evenness(record)


def evenness(record: dict) -> str:
    """Markdown: how even is a step? Empty where it was not measured."""
    if not record.get("steps"):
        return ""
    measures = [*MEASURES, "mean"]
    lines = ["", "## How even is a step?", "", *head(["memory", "way", *measures])]
    for run in record["steps"]:
        ms = [f"{1e3 * run[measure]:.1f}" for measure in measures]
        lines.append(row(run["n"], run["k"], [run["memory"], run["method"], *ms]))
    return "\n".join(lines) + (
        f"\n\nMilliseconds of {STEPS} steps, the ways in turns, each with the release of its gradients; malloc at its "
        "defaults. In small pieces: another process has filled the free memory and let go of every second page of 4 "
        f"KiB; what comes together again, it takes every {TAKEN} steps.\n"
    )


def time_default(path: Path, device: str) -> None:
    """Time a step of training at the default temperature beside both forms of hard top-k, at the large sizes."""
    record = resume(path, device)
    for n, k in tqdm(SHAPES, desc="time"):
        if not any((run["n"], run["k"]) == (n, k) for run in record["runs"]):
            runs = [{"method": method, "n": n, "k": k} for method in (DEFAULT, HARD, GATED)]
            measure_time(runs, device, "seconds")
            record["runs"] += runs
            save(record, path)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--default-only", action="store_true", help="see the end of what stands above")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda"):
        return speed_gpu.main()
    if LIBRARY is None and arguments.device == "cpu":
        sys.exit("shtopk was installed without a C compiler; install one, then: make clean env")
    torch.set_num_threads(THREADS)
    if arguments.default_only:
        return time_default(arguments.results / "speed-default.json", arguments.device)
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
    if arguments.device == "cpu" and sys.platform == "linux":
        steps = record.setdefault("steps", [])
        for memory in tqdm((AS_IT_IS, IN_PIECES), desc="single steps"):
            if not any(run["memory"] == memory for run in steps):
                steps += measure_evenness(memory)
                save(record, path)
    keep_freed_memory()
    for n, k in tqdm(SHAPES, desc="time, freed memory kept"):
        runs = [run for run in at(n, k) if run["method"] in MEMORY_KEPT]
        if any("seconds_memory_kept" not in run for run in runs):
            measure_time(runs, arguments.device, "seconds_memory_kept")
            save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
