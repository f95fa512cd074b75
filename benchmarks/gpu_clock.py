"""How a benchmark times work on a GPU: by events, as a CUDA graph, and whether it waits for the host. On a CPU by the
clock, to try it out."""

import functools
import math
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from record import ROOT
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

ENOUGH_MS = 8.0  # of runs for one median
ROWS = 5  # of runs by the clock
COPIED = 2**30  # bytes


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@functools.cache
def beyond_the_cache(device: str) -> Tensor:
    return torch.empty(2**28, dtype=torch.int8, device=device)


def milliseconds(work: Callable[[], object], device: str) -> float:
    """Median of runs that take ENOUGH_MS together, at least 3: on a CPU by the clock."""
    work()
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    count = min(100, max(3, math.ceil(ENOUGH_MS / 1e3 / (time.perf_counter() - start))))
    if not device.startswith("cuda"):
        return statistics.median(_by_the_clock(work) for _ in range(count))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for before, after in events:
        beyond_the_cache(device).zero_()
        before.record()
        work()
        after.record()
    torch.cuda.synchronize(device)
    return statistics.median(before.elapsed_time(after) for before, after in events)


def _by_the_clock(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def loop_milliseconds(work: Callable[[], object], device: str, once: float) -> float:
    """A run among many in a row, each of about `once` ms: the median of a few such rows."""
    count, rows = min(100, max(3, math.ceil(ENOUGH_MS / once))), []
    for _ in range(ROWS):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            work()
        synchronize(device)
        rows.append(1e3 * (time.perf_counter() - start) / count)
    return statistics.median(rows)


def copy_speed(device: str) -> float:
    """Bytes a second that a large copy within the device reads and writes."""
    source = torch.zeros(COPIED if device.startswith("cuda") else COPIED // 16, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2e3 * source.numel() / milliseconds(lambda: target.copy_(source), device)


def copy_milliseconds(moved: int, device: str) -> float:
    """What a kernel takes that reads and writes so many bytes together; as a CUDA graph, in which a copy of torch's
    would be left to slower hardware than its kernels."""
    source = torch.zeros(max(1, moved // 8), device=device)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return torch.add(source, 0.0, out=target)

    return milliseconds(captured(copy) if device.startswith("cuda") else copy, device)


class CaptureFailed(Exception):
    """A capture that was begun and broken off."""


def waits(work: Callable[[], object]) -> str | None:
    """Where work waits for the host, by torch's own account; None where it does not."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "site-packages" not in f.filename]
        at = f"{Path(ours[-1].filename).relative_to(ROOT)}, line {ours[-1].lineno}" if ours else "backward"
        return f"waits for the host ({at})"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def launches_and_waits(work: Callable[[], object], device: str) -> tuple[int, int]:
    """How many kernels, copies and fills are launched, and how often the host waits, as the profiler sees it."""
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        work()
    names = [event.name for event in trace.events()]
    launches = sum("LaunchKernel" in one or one.startswith(("cudaMemcpy", "cudaMemset")) for one in names)
    return launches, sum(one in ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy") for one in names)


def captured(work: Callable[[], object]) -> Callable[[], None]:
    """What runs work as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # backward runs in a thread of its own
            result = work()
    except RuntimeError as error:
        raise CaptureFailed(one_line(error)) from error

    def replay(graph=graph, result=result) -> None:  # both have to live as long as it
        graph.replay()

    return replay


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
