"""Work shared among torch's own threads.

After an operation, torch's threads spin for a while, waiting for the next one. So further threads of ours found no
free processor: two took as long as one. But torch has its threads from OpenMP, which lends them to others, too.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch  # noqa: F401  brings OpenMP

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _openmp() -> Callable | None:
    """The function that runs another one in several threads, by its name on Linux; None if there is none."""
    run = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    if run is not None:
        run.argtypes, run.restype = [_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return run


_run = _openmp()


def parallel_map(work: Callable[..., int], parts: Sequence[tuple[int, ...]]) -> list[int]:
    """Run `work(*part)` for all parts at the same time. Returns the results, in any order."""
    if len(parts) == 1:
        return [work(*parts[0])]
    if _run is None:
        return list(_pool().map(work, *zip(*parts, strict=True)))
    todo, done = iter(parts), []
    failed: list[BaseException] = []  # Ctrl-C among them, which ctypes would swallow

    def take(_) -> None:
        try:
            for part in todo:  # which gives each part to one thread, as Python lets one at a time take
                done.append(work(*part))
        except BaseException as error:
            failed.append(error)

    _run(_Work(take), None, len(parts), 0)
    if failed:
        raise failed[0]
    if len(done) < len(parts):
        raise RuntimeError(f"{len(parts) - len(done)} of {len(parts)} parts of the work failed, see above")
    return done


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="shtopk")


def _forked() -> None:
    """Runs in a forked process: threads do not live on there, and OpenMP would wait for those it had."""
    global _run
    _run = None
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
