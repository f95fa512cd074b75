"""What does select and merge cost beside the tournament that taught the scores, and beside Ward clusters?

python benchmarks/merging.py [--results folder]

One document, forward, one thread, d = 384 (256 at n = 16,384), random vectors and scores, so that no token can be left
out. All ways take turns, and the figure is the median of the CPU time (of no other process). Writes
benchmarks/results/merging.json and the table beside it as .md.
"""

import statistics
import time
from collections.abc import Callable

import torch
from record import CommandLine, publish, resume, save
from retrieval_ways import ward
from torch import Tensor
from tqdm.auto import tqdm

from shtopk import hard_topk, select_and_merge_topk, successive_halving_topk

SHAPES = [(512, 8, 384), (512, 32, 384), (2048, 8, 384), (2048, 32, 384), (16384, 128, 256)]  # n, k, d
MERGE, TOURNAMENT, HARD, WARD = "select and merge", "successive halving", "hard top-k", "Ward clusters"
WAYS: dict[str, Callable[[Tensor, Tensor, int], object]] = {
    MERGE: lambda values, scores, k: select_and_merge_topk(values[None], scores[None], k),
    TOURNAMENT: lambda values, scores, k: successive_halving_topk(values[None], scores[None], k),
    HARD: lambda values, scores, k: hard_topk(values[None], scores[None], k),
    WARD: lambda values, scores, k: ward(values, k),
}
MOST_FOR_WARD = 4096  # tokens: its distances are n x n
TURNS, CALLS = 100, 0.01  # and CPU seconds of calls in a turn, one call at least


@torch.inference_mode()
def measure(n: int, k: int, d: int) -> dict[str, float]:
    """Median CPU seconds of each way."""
    values, scores = torch.randn(n, d), torch.randn(n)
    ways = {name: way for name, way in WAYS.items() if name != WARD or n <= MOST_FOR_WARD}
    calls = {name: max(1, int(CALLS / seconds_of(way, 1, values, scores, k))) for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, way in ways.items():
            if name != WARD or not turn % 5:  # what comes after its n x n distances finds memory and caches upset
                taken[name].append(seconds_of(way, calls[name], values, scores, k))
    return {name: statistics.median(found) for name, found in taken.items()}


def seconds_of(way: Callable, calls: int, *given: object) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    for _ in range(calls):
        way(*given)
    return (time.process_time() - start) / calls


def seconds(record: dict, n: int, k: int, way: str) -> float:
    (run,) = [run for run in record["runs"] if (run["n"], run["k"]) == (n, k)]
    return run["seconds"][way]


def ratio(record: dict, n: int, k: int, way: str, other: str) -> float:
    """How many times as long a way takes as another one."""
    return seconds(record, n, k, way) / seconds(record, n, k, other)


def table(record: dict) -> str:
    """Markdown: a row for each shape."""
    lines = [
        f"| n | k | {MERGE}, ms | / {TOURNAMENT} | / {HARD} | {WARD} / {MERGE} |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for run in record["runs"]:
        taken = run["seconds"]
        ward_cell = f"{taken[WARD] / taken[MERGE]:.3g}" if WARD in taken else ""
        others = " | ".join(f"{taken[MERGE] / taken[other]:.2g}" for other in (TOURNAMENT, HARD))
        lines.append(f"| {run['n']:,} | {run['k']} | {1000 * taken[MERGE]:.2f} | {others} | {ward_cell} |")
    return "\n".join(lines) + (
        f"\n\nOne document, forward, float32, median CPU time of ways that take turns. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    arguments = CommandLine(__doc__, device=False).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = arguments.results / "merging.json"
    record = resume(path, "cpu")
    done = {(run["n"], run["k"]) for run in record["runs"]}
    for n, k, d in tqdm([shape for shape in SHAPES if shape[:2] not in done], desc="merging"):
        record["runs"].append({"n": n, "k": k, "d": d, "seconds": measure(n, k, d)})
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
