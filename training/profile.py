"""A trace of a few updates, for chrome://tracing or ui.perfetto.dev."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

SKIPPED = 2  # updates that come first: one runs cold, with one the profiler warms up


def profiler(updates: int, path: Path) -> AbstractContextManager:
    """A context in which each `.step()` ends an update; after the third and `updates` - 1 more the trace is written.

    With 0 updates, a context that gives None.
    """
    if not updates:
        return nullcontext()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    return torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=updates, repeat=1),
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
        profile_memory=True,
    )
