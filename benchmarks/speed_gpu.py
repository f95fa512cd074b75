"""What does it cost on a GPU? Time, memory, launches and waits of a step, beside the bytes that must move.

python benchmarks/speed_gpu.py [--seconds 150] [--device cuda] [--results folder] [--shapes 1024x8 ...]

Batch 16, d = 256, values in float32 and in bfloat16, scores in the values' dtype, as autocast has a scorer give them.
Every (n, k, dtype, method) is a cell: forward, backward and both, called one operation after another (eager) and as a
CUDA graph, where the method can be captured; if not, the record says why. A time is the median of a few milliseconds'
worth of runs, by CUDA events, each after the L2 cache was overwritten; "loop" is a step of many in a row by the clock,
cache as it is, the host's work included (the median of five such rows). The shapes that matter most come first, the
record is saved after every cell, and after --seconds no further cell is begun; the same command goes on from there.
With --device cpu all of this runs but for graphs and counts, to try it out. Writes speed-gpu.json and .md.
"""

import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
from gpu_clock import (
    CaptureFailed,
    captured,
    copy_milliseconds,
    copy_speed,
    launches_and_waits,
    loop_milliseconds,
    milliseconds,
    one_line,
    synchronize,
    waits,
)
from gpu_methods import BATCH, DEPTH, DTYPES, ITERATIVE, METHODS, Step, floor_bytes
from memory import saved_bytes
from record import CommandLine, publish, resume, save
from tqdm.auto import tqdm

from shtopk.training.comparison import in_its_own_process
from shtopk.training.memory import PeakMemory

GOALS = [(16384, 128), (4096, 512), (1024, 8)]
REST = [(n, k) for k in (128, 512, 8, 2048) for n in (65536, 16384, 4096, 1024) if k <= n // 2 and (n, k) not in GOALS]
COUNTING = 25  # seconds
COPIES_OF_WEIGHTS = 8  # [B, k, n] float32 that iterative top-k holds at once, about

FLOOR, COPIES = "byte floor", "copies of as many bytes"
TIMES = ("forward", "backward", "both", "loop", "graph_forward", "graph_both")  # "<name>_ms" in a run


def too_large(method: str, n: int, k: int, device: str) -> str | None:
    """Why a cell is not measured."""
    memory = torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else 2**31
    needed = COPIES_OF_WEIGHTS * 4 * BATCH * k * n
    if method == ITERATIVE and needed > memory / 2:
        return f"its weights [B, k, n] take about {needed / 2**30:.0f} GiB, more than half the memory"
    return None


def measure(method: str, n: int, k: int, dtype: str, device: str, no_graph: str | None = None) -> dict:
    """One cell; no_graph: why no graph is tried. What failed has its reason under "skipped" or "no_graph"."""
    run = {"method": method, "n": n, "k": k, "dtype": dtype}
    if reason := too_large(method, n, k, device):
        return run | {"skipped": reason}
    try:
        step = Step(METHODS[method], n, k, dtype, device)
        run["forward_ms"] = milliseconds(step.forward, device)
        run["backward_ms"] = milliseconds(partial(step.backward, step.forward(), again=True), device)
        run["both_ms"] = milliseconds(step.both, device)
        run["loop_ms"] = loop_milliseconds(step.both, device, run["both_ms"])
        memory = PeakMemory(torch.device(device))
        step.both()
        synchronize(device)
        run["peak_mib"] = memory.read()
        run["saved_bytes"] = saved_bytes(step.forward, step.values, step.scores)
        if not device.startswith("cuda"):
            return run | {"no_graph": "no CUDA device"}
        if reason := no_graph or waits(step.both):
            return run | {"no_graph": reason}
        # Inputs of its own: autograd ties an input to the stream of its first use while anything holds that graph.
        step = Step(METHODS[method], n, k, dtype, device)
        run["graph_both_ms"] = milliseconds(captured(step.both), device)  # which matters most: a capture may fail
        run["graph_forward_ms"] = milliseconds(captured(step.forward), device)
    except torch.OutOfMemoryError as error:
        return run | {"skipped": f"out of memory: {one_line(error)}"}
    except CaptureFailed as error:
        return run | {"no_graph": str(error), "broken_off": True}
    except Exception as error:  # a method that fails must not take the others with it
        return run | {"skipped": f"failed: {one_line(error)}", "broken_off": True}
    return run


def count(cells: list[tuple[int, int, str, str]], device: str, seconds: float) -> list[dict]:
    """Launches and waits of one forward and one backward in each cell that is begun in time. To be run in a process of
    its own: the profiler slows down what comes after it."""
    end = time.monotonic() + seconds
    found = [count_in(*cell, device) for cell in cells if time.monotonic() < end]
    return [one for one in found if one["forward_launches"]]  # none is seen where profiling is not allowed


def count_in(n: int, k: int, dtype: str, method: str, device: str) -> dict:
    step = Step(METHODS[method], n, k, dtype, device)
    step.both()
    run, out = {"method": method, "n": n, "k": k, "dtype": dtype}, []
    for name, work in {
        "forward": lambda: out.append(step.forward()),
        "backward": lambda: step.backward(out[0]),
    }.items():
        run[f"{name}_launches"], run[f"{name}_waits"] = launches_and_waits(work, device)
    return run


def cell_of(run: dict) -> tuple[int, int, str, str]:
    return run["n"], run["k"], run["dtype"], run["method"]


def table(record: dict) -> str:
    """Markdown: every figure of the shapes that matter most, a step's time of the others, and what was left out."""
    cells = {cell_of(run): run for run in record["runs"]}
    places = [(n, k, dtype) for n, k in record["shapes"] for dtype in DTYPES]
    lines = []
    for n, k, dtype in places:
        if [n, k] in record["goals"] and any(place[:3] == (n, k, dtype) for place in cells):
            lines += [f"n = {n}, k = {k}, {dtype}:", "", *_in_full(cells, n, k, dtype, record), ""]
    lines += [
        "Milliseconds, median, by CUDA events, L2 cache overwritten before each; loop: a step of many in a row, by "
        "the clock. Saved: for backward, beyond values and scores; peak: of a step. Launches (with copies) and waits "
        "for the host: of forward + backward. Backward as a graph is the difference of the two columns."
        + " Copies: a forward's bytes and a backward's, each by one kernel."
        * ("copies" in record),
        "",
        f"| n | k | dtype | {' | '.join(METHODS)} | {FLOOR} |",
        "|--:|--:|---|" + "--:|" * (len(METHODS) + 1),
    ]
    for n, k, dtype in places:
        runs = [cells.get((n, k, dtype, method)) for method in METHODS]
        if any(runs):
            shown = [_step_of(run) for run in runs]
            lines.append(f"| {n} | {k} | {dtype} | {' | '.join(shown)} | {sum(floor_ms(n, k, dtype, record)):.3g} |")
    reasons: dict[str, list[str]] = {}
    for run in record["runs"]:
        for key in ("skipped", "no_graph"):
            if key in run:
                place = f"{run['method']} at ({run['n']}, {run['k']}) {run['dtype']}"
                what = "not measured" if key == "skipped" else "no graph"
                reasons.setdefault(f"{what}: {run[key]}", []).append(place)
    planned = len(places) * len(METHODS)
    lines += ["", "Forward and backward, ms: eager / as a graph.", ""]
    lines += [f"- {reason}: {_few(where)}" for reason, where in reasons.items()]
    return "\n".join(lines) + (
        f"\n\n{len(cells)} of {planned} cells; batch {BATCH}, d = {DEPTH}, scores in the values' dtype. {FLOOR}: "
        f"bytes that must move, at the {record['copy_bytes_per_second'] / 1e9:.0f} GB/s of a large copy on the same "
        f"device. `{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def summary(record: dict) -> str:
    """Markdown for the pages: a step of successive halving beside those of `torch.topk` + `gather`."""
    cells = {cell_of(run): run for run in record["runs"]}
    ours, hard = list(METHODS)[:3], "torch.topk + gather"
    lines = [
        f"| n | k | dtype | {hard}, µs | {' | '.join(ours)} | the first, eager, in a row |",
        "|--:|--:|---|--:|" + "--:|" * (len(ours) + 1),
    ]
    for n, k in map(tuple, record["goals"]):
        for dtype in DTYPES:
            base = cells[n, k, dtype, hard]
            runs = [cells[n, k, dtype, method] for method in ours]
            shown = [f"{run['graph_both_ms'] / base['graph_both_ms']:.2f}" for run in runs]
            eager = f"{runs[0]['loop_ms'] / base['loop_ms']:.1f}"
            lines.append(
                f"| {n} | {k} | {dtype} | {1e3 * base['graph_both_ms']:.0f} | {' | '.join(shown)} | {eager} |"
            )
    return "\n".join(lines) + (
        f"\n\nForward and backward as a CUDA graph, in units of those of {hard}; and called one after another, by the "
        f"clock; batch {BATCH}, d = {DEPTH}. `{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def _in_full(cells: dict, n: int, k: int, dtype: str, record: dict) -> list[str]:
    lines = [
        "| method | forward | backward | both | loop | graph: forward | both | of the floor | saved, MiB | peak, MiB "
        "| launches | waits |",
        "|---|" + "--:|" * 11,
    ]
    counts = {cell_of(one): one for one in record.get("counts", [])}
    floors = floor_ms(n, k, dtype, record)
    for method in METHODS:
        run = cells.get((n, k, dtype, method))
        if run is None or "both_ms" not in run:
            continue
        shown = [f"{run[f'{name}_ms']:.3g}" if f"{name}_ms" in run else "" for name in TIMES]
        best = min(run[f"{name}_ms"] for name in ("both", "graph_both") if f"{name}_ms" in run)
        shown += [f"{best / sum(floors):.1f}"]
        shown += [f"{run['saved_bytes'] / 2**20:.1f}" if "saved_bytes" in run else ""]
        shown += [f"{run['peak_mib']:.0f}" if "peak_mib" in run else ""]
        one = counts.get((n, k, dtype, method))
        for what in ("launches", "waits"):
            shown.append(f"{one[f'forward_{what}']} + {one[f'backward_{what}']}" if one else "")
        lines.append(f"| {method} | {' | '.join(shown)} |")
    forward, backward = floors
    lines.append(f"| {FLOOR} | {forward:.3g} | {backward:.3g} | {forward + backward:.3g} |" + " |" * 8)
    for one in record.get("copies", []):
        if (one["n"], one["k"], one["dtype"]) == (n, k, dtype):
            both = sum(one["ms"])
            times = f"{one['ms'][0]:.3g} | {both:.3g} | {both / sum(floors):.1f}"
            lines.append(f"| {COPIES} | | | | | {times} |" + " |" * 4)
    return lines


def floor_ms(n: int, k: int, dtype: str, record: dict) -> list[float]:
    return [1e3 * moved / record["copy_bytes_per_second"] for moved in floor_bytes(n, k, DTYPES[dtype].itemsize)]


def copies(shapes: list[tuple[int, int]], device: str) -> list[dict]:
    """What copies of a floor's bytes take: small ones are slower than a large one."""

    def milliseconds(n: int, k: int, dtype: str) -> list[float]:
        return [copy_milliseconds(moved, device) for moved in floor_bytes(n, k, DTYPES[dtype].itemsize)]

    places = [(n, k, dtype) for n, k in shapes for dtype in DTYPES]
    return [dict(zip(("n", "k", "dtype"), place, strict=True), ms=milliseconds(*place)) for place in places]


def _step_of(run: dict | None) -> str:
    if run is None or "both_ms" not in run:
        return "" if run is None else "-"
    return f"{run['both_ms']:.3g} / " + (f"{run['graph_both_ms']:.3g}" if "graph_both_ms" in run else "-")


def _few(places: list[str]) -> str:
    return "; ".join(places[:3]) + (f"; and {len(places) - 3} more" if len(places) > 3 else "")


def shape(text: str) -> tuple[int, int]:
    n, k = text.split("x")
    return int(n), int(k)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no cell after so many")
    parser.add_argument("--shapes", type=shape, nargs="+", help="n x k, such as 1024x8; by default the whole grid")
    arguments = parser.parse_args()
    end, device = time.monotonic() + arguments.seconds, arguments.device
    path = arguments.results / "speed-gpu.json"
    shapes = arguments.shapes or GOALS + REST
    goals = arguments.shapes or GOALS
    record = resume(path, device, shapes=[list(one) for one in shapes], goals=[list(one) for one in goals])
    if "copy_bytes_per_second" not in record:
        record["copy_bytes_per_second"] = copy_speed(device)
        record["copies"] = copies(goals, device)
        save(record, path)
    for some, counted in (goals, True), ([one for one in shapes if one not in goals], False):
        measure_all([(n, k, dtype, method) for n, k in some for dtype in DTYPES for method in METHODS],
                    record, path, device, end)  # fmt: skip
        publish_quietly(record, path)
        if counted and device.startswith("cuda") and "counts" not in record and time.monotonic() < end:
            torch.cuda.empty_cache()
            record["counts"] = counts_of(record["runs"], device, min(COUNTING, end - time.monotonic()))
            save(record, path)
            publish_quietly(record, path)
    publish(record, path, table)


def counts_of(runs: list[dict], device: str, seconds: float) -> list[dict]:
    """`count` of what was measured, float32 first; nothing where the profiler fails."""
    plan = sorted((cell_of(run) for run in runs if "loop_ms" in run), key=lambda cell: cell[2] != "float32")
    try:
        return in_its_own_process(count, plan, device, seconds)
    except Exception as error:
        print(f"no launches were counted: {one_line(error)}", file=sys.stderr)
        return []


def publish_quietly(record: dict, path: Path) -> None:
    path.with_suffix(".md").write_text(table(record))


def measure_all(plan: list, record: dict, path: Path, device: str, end: float) -> None:
    done = {cell_of(run) for run in record["runs"]}
    for n, k, dtype, method in tqdm([cell for cell in plan if cell not in done], desc="cells"):
        if time.monotonic() > end:
            return
        failed = [run for run in record["runs"] if run["method"] == method and "broken_off" in run]
        no_graph = next((run["no_graph"] for run in failed if "no_graph" in run), None)
        if len(failed) >= 2 and no_graph is None:
            run = {"method": method, "n": n, "k": k, "dtype": dtype}
            run["skipped"] = f"{failed[0]['skipped']}, twice before"
        else:
            run = measure(method, n, k, dtype, device, no_graph)
        record["runs"].append(run)
        save(record, path)
        if "broken_off" in run and device.startswith("cuda"):
            begin_again(end)  # a process in which a capture or a kernel failed is not to be trusted


def begin_again(end: float) -> None:
    """The same command in a new process, which goes on from the record with the time that is left."""
    words = [word for word in sys.argv if not word.startswith("--seconds=")]
    if "--seconds" in words:
        at = words.index("--seconds")
        del words[at : at + 2]
    left = [] if end == math.inf else [f"--seconds={max(0.0, end - time.monotonic()):.0f}"]
    os.execv(sys.executable, [sys.executable, *words, *left])  # noqa: S606


if __name__ == "__main__":
    main()
