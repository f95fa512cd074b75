"""The paper's evaluation beside ours: time per batch and nCCS against n, one line per k (Figures 1 and 2).

python benchmarks/paper.py [--grid small] [--seconds 60] [--device cuda] [--results folder]

Batch 16, values ~ U[-1, 1] with d = 32, scores ~ U[0, 1], n = 2^4 ... 2^14, k = 2^1 ... 2^11, k < n, forward only, as
in the paper. Writes paper-<grid>.json and .csv after every cell, so that an interrupted run goes on where it stopped,
then the table (.md) and the pictures (.png). All methods of a cell take turns. With --seconds a time is the median of
a fifth as many runs, k = 128 and then every other n come first, and after so many seconds no cell is begun.
"""

import csv
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import torch
from literal import literal_successive_halving
from record import CommandLine, publish, resume, save
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm.auto import tqdm

from shtopk import hard_topk, iterative_topk, nccs, successive_halving_topk
from shtopk.rule import Boost

matplotlib.use("agg")
import matplotlib.pyplot as plt

BATCH, DEPTH, SAMPLES = 16, 32, 256  # SAMPLES rows for nCCS, as in the authors' run
TURNS = 5  # of each method of a cell
GRIDS = {
    "small": [(2**i, 2**j) for i in range(4, 13, 2) for j in range(1, 10, 2) if j < i],
    "full": [(2**i, 2**j) for i in range(4, 15) for j in range(1, 12) if j < i],
}
ROWS_OF_WEIGHTS = 2**26  # k * n * rows that iterative top-k holds at once; more rows are split into parts


def in_parts(operator: Callable, values: Tensor, scores: Tensor, k: int) -> Tensor:
    """Iterative top-k on as many rows at a time as memory allows."""
    size = max(1, ROWS_OF_WEIGHTS // (k * scores.shape[-1]))
    parts = zip(values.split(size), scores.split(size), strict=True)
    return torch.cat([operator(v, s, k).values for v, s in parts])


def pooled_by(operator: Callable, values: Tensor, scores: Tensor, k: int) -> Tensor:
    return operator(values, scores, k).values


def halving(boost: Boost, temperature: float) -> Callable[[Tensor, Tensor, int], Tensor]:
    return partial(pooled_by, partial(successive_halving_topk, boost=boost, temperature=temperature))


METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "relative (ours)": halving("relative", 1 / 16),
    "power (authors' code)": halving("power", 1.0),
    "softmax (paper's text)": halving("softmax", 1 / 16),
    "literal Algorithm 2": literal_successive_halving,
    "iterative, as published": partial(in_parts, iterative_topk),
    "iterative, best T": partial(in_parts, iterative_topk),
    "hard top-k": partial(pooled_by, hard_topk),
}
TEMPERATURES = [1e-4, 1e-7, 1e-10]  # of "iterative, best T": that with the best nCCS counts
AUTHORS = json.loads((Path(__file__).parent / "authors.json").read_text())  # what they published of a GPU
THEIRS = ("successive halving", "iterative")
IN_README = ["relative (ours)", "power (authors' code)", "iterative, as published", "hard top-k"]


def sample(n: int, device: str, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(BATCH, n, DEPTH, generator=generator) * 2 - 1
    return values.to(device), torch.rand(BATCH, n, generator=generator).to(device)


@torch.inference_mode()
def similarity(method: Callable, n: int, k: int, device: str) -> float:
    """Mean nCCS over `SAMPLES` rows; over fewer for large n * k, where rows differ little."""
    batches = max(1, min(SAMPLES // BATCH, 2**22 // (n * k)))
    found = []
    for seed in range(batches):
        values, scores = sample(n, device, seed)
        found.append(nccs(hard_topk(values, scores, k).values, method(values, scores, k)).mean())
    return torch.stack(found).mean().item()


@torch.inference_mode()
def seconds(methods: list[Callable], n: int, k: int, device: str, least: float) -> list[float]:
    """Time of one batch with each method: the median over `TURNS`, so that what disturbs one turn spoils no figure.

    A turn takes at least its share of so many seconds; `Timer` warms up and, on a GPU, waits for it. What takes longer
    than all turns together should has one turn.
    """
    values, scores = sample(n, device, 0)
    timers = []
    for method in methods:
        method(values, scores, k)
        its = {"method": method, "values": values, "scores": scores, "k": k}
        timers.append(Timer("method(values, scores, k)", globals=its, num_threads=torch.get_num_threads()))
    found: list[list[float]] = [[] for _ in timers]
    for _ in range(TURNS):
        for timer, times in zip(timers, found, strict=True):
            if not times or times[0] < least:
                times.append(timer.blocked_autorange(min_run_time=least / TURNS).median)
    return [statistics.median(times) for times in found]


def measure(n: int, k: int, device: str, least: float = 0.1) -> list[dict]:
    """A run of each method, of which the times are taken in turns."""
    chosen = [(name, *at_best(name, n, k, device)) for name in METHODS]
    times = seconds([method for _, method, _ in chosen], n, k, device, least)
    return [
        {"method": name, "n": n, "k": k, "temperature": temperature,
         "nccs": similarity(method, n, k, device), "seconds": time}
        for (name, method, temperature), time in zip(chosen, times, strict=True)
    ]  # fmt: skip


def at_best(name: str, n: int, k: int, device: str) -> tuple[Callable, float | None]:
    """A method, and its temperature if that is chosen for each n and k."""
    if name != "iterative, best T":
        return METHODS[name], None
    tried = {t: partial(in_parts, partial(iterative_topk, temperature=t)) for t in TEMPERATURES}
    scored = {t: similarity(method, n, k, device) for t, method in tried.items()}
    temperature = max(scored, key=scored.__getitem__)
    return tried[temperature], temperature


def draw(runs: list[dict], methods: list[str], measures: list[str], path: Path) -> None:
    """A row for each measure, a panel for each method, a line for each k."""
    ks = sorted({run["k"] for run in runs})
    figure, axes = plt.subplots(len(measures), len(methods), figsize=(2.5 * len(methods), 2.4 * len(measures)),
                                sharex=True, sharey="row", squeeze=False, layout="constrained")  # fmt: skip
    for row, measure in zip(axes, measures, strict=True):
        for panel, method in zip(row, methods, strict=True):
            for i, k in enumerate(ks):
                points = sorted((r["n"], r[measure]) for r in runs if (r["method"], r["k"]) == (method, k))
                color = plt.cm.viridis(0.9 * i / max(1, len(ks) - 1))
                panel.plot(*zip(*points, strict=True), color=color, marker=".", markersize=4, linewidth=1.2, label=k)
            panel.set_xscale("log", base=2)
            panel.grid(color="0.92", linewidth=0.6)
            panel.spines[["top", "right"]].set_visible(False)
            if measure == "seconds":
                panel.set_yscale("log")
            else:
                panel.set_ylim(0, 1.04)
        row[0].set_ylabel("seconds per batch of 16" if measure == "seconds" else "nCCS")
    for panel, method in zip(axes[0], methods, strict=True):
        panel.set_title(method, fontsize=10)
    for panel in axes[-1]:
        panel.set_xlabel("n")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), title="k", loc="outside right center", frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def table(record: dict) -> str:
    """Markdown: nCCS and milliseconds of every method at each (n, k)."""
    cells = {(run["n"], run["k"], run["method"]): run for run in record["runs"]}
    theirs = {} if "CPU" in record["device"] else {(one["n"], one["k"]): one for one in AUTHORS["cells"]}
    names = [*METHODS, *(f"the authors' {name}" for name in THEIRS if theirs)]
    lines = [f"| n | k | {' | '.join(names)} |", "|--:|--:|" + "--:|" * len(names)]
    for n, k in sorted({(run["n"], run["k"]) for run in record["runs"]}):
        shown = [f"{cells[n, k, m]['nccs']:.3f}, {1e3 * cells[n, k, m]['seconds']:.3g} ms" for m in METHODS]
        shown += [f"{1e3 * theirs[n, k][name]:.3g} ms" if (n, k) in theirs else "" for name in THEIRS if theirs]
        lines.append(f"| {n} | {k} | {' | '.join(shown)} |")
    of_theirs = f"The authors' are published figures ({AUTHORS['source']}). " if theirs else ""
    return "\n".join(lines) + (
        f"\n\nnCCS and time per batch of {BATCH}, forward, d = {DEPTH}. {of_theirs}"
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def complete(runs: list[dict]) -> list[dict]:
    """Those of every n and k at which all methods were measured; records of before they took turns have others."""
    found = Counter((run["n"], run["k"]) for run in runs)
    return [run for run in runs if found[run["n"], run["k"]] == len(METHODS)]


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--grid", choices=GRIDS, default="full")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no cell after so many")
    arguments = parser.parse_args()
    end, limited = time.monotonic() + arguments.seconds, arguments.seconds < math.inf
    path = arguments.results / f"paper-{arguments.grid}.json"
    record = resume(path, arguments.device)
    runs = record["runs"]
    done = {(run["n"], run["k"]) for run in runs}
    grid = GRIDS[arguments.grid]
    if limited:  # k = 128, then n = 2^4, 2^6, ..., then 2^5, 2^7, ...
        grid = sorted(grid, key=lambda place: (place[1] != 128, place[0].bit_length() % 2 == 0, *place))
    for n, k in (bar := tqdm([cell for cell in grid if cell not in done])):
        bar.set_postfix_str(f"n {n}, k {k}")
        if time.monotonic() > end:
            break
        runs += measure(n, k, arguments.device, 0.02 if limited else 0.1)
        save(record, path)
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(runs[0]))
            writer.writeheader()
            writer.writerows(runs)
    runs = complete(runs)
    publish(record | {"runs": runs}, path, table)
    draw(runs, list(METHODS), ["seconds"], path.with_name(f"{path.stem}-time.png"))
    draw(runs, list(METHODS), ["nccs"], path.with_name(f"{path.stem}-nccs.png"))
    draw(runs, IN_README, ["seconds", "nccs"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
