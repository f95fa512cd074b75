"""Trainings that differ in how they pool, side by side: one after the other, each in a process of its own."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from shtopk.operators import OPERATORS
from shtopk.training.run_folder import CARD, CHECKPOINTS, CODE, MODEL, TOKENIZER, remove, written
from shtopk.training.whole import write_whole

WAYS: dict[str, dict[str, Any]] = {name: {"operator": name} for name in OPERATORS} | {
    "random": {"operator": "hard", "freeze_scorer": True},  # scorer
    "strided": {"operator": "hard", "scorer": "strided"},
    "first": {"operator": "hard", "scorer": "first"},
    "none": {"operator": "hard", "scorer": "first", "k": 1.0, "k_by_layer": "none", "k_range": "none"},
}
PATIENCE = 60  # seconds in which a process that has answered ends by itself
SPEEDS = ("documents_per_second", "generated_tokens_per_second")
COLUMNS = {  # key of a run -> head of the column, decimals, whether the spread is shown
    "accuracy": ("accuracy", 3, True),
    "f1_micro": ("micro-F1", 3, True),
    "f1": ("macro-F1", 3, True),
    "mse": ("MSE", 3, True),
    "mae": ("MAE", 3, True),
    "pearson": ("Pearson", 3, True),
    "spearman": ("Spearman", 3, True),
    "exact_match": ("exact match", 3, True),
    "loss": ("loss", 3, True),
    "rouge1": ("ROUGE-1", 3, True),
    "rouge2": ("ROUGE-2", 3, True),
    "rougeL": ("ROUGE-L", 3, True),
    "evidence_share": ("evidence among the kept", 2, True),
    "train_seconds": ("training s", 0, False),
    "documents_per_second": ("inference documents/s", 0, False),
    "generated_tokens_per_second": ("generated tokens/s", 0, False),
    "peak_mib": ("peak MiB", 0, False),
}
SCORES = tuple(COLUMNS)[: tuple(COLUMNS).index("evidence_share")]


class Planned(NamedTuple):
    """One training of a comparison."""

    way: str  # of `WAYS`
    k: str  # as the table shows it
    seed: int
    layer: str | None = None  # that a language model's prompts are pooled before; None: another model, which has a k

    @property
    def folder(self) -> str:
        return f"{self.way}-k{self.k}-seed{self.seed}"

    @property
    def words(self) -> list[str]:
        """The words that its command line has beside those of the comparison."""
        fields = {"k": self.k} | WAYS[self.way] | {"seed": self.seed}
        if self.layer is not None:
            fields["k_by_layer"] = f"{self.layer}:{fields.pop('k')}"
        return [f"--{name}={value}" for name, value in fields.items()]


def planned(ways: Sequence[str], ks: Sequence[str], seeds: Sequence[int], layer: str | None = None) -> list[Planned]:
    """Plan every way with every k and seed, all ways with one seed before the next seed. "none" has no k."""
    rows = [(way, "all" if way == "none" else k) for k, way in itertools.product(ks, ways)]
    return [Planned(way, k, seed, layer) for seed in seeds for way, k in dict.fromkeys(rows)]


def in_its_own_process(work: Callable, *arguments: Any) -> Any:
    """Return work(*arguments), run in a new process. So its peak memory does not depend on what ran before.

    A signal that ends this process is passed on as SIGTERM, once, and this process waits for the other to end. A
    second signal ends it at once.

    Raises:
        ChildProcessError: the other process ended without a result.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
        process.join(PATIENCE)  # it writes out what is open, and removes its temporary files
        return result
    except EOFError:
        process.join()
        raise ChildProcessError(f"it ended with exit code {process.exitcode}") from None
    except KeyboardInterrupt:
        process.terminate()
        process.join()
        raise
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def _send(connection: Connection, work: Callable, arguments: tuple) -> None:
    """Runs in the other process: send the result back. Ctrl-C is left to the process that waits."""
    if hasattr(os, "setsid"):
        os.setsid()
    connection.send(work(*arguments))


def compare(
    plan: Sequence[Planned],
    words: Sequence[str],
    folder: Path,
    record: dict[str, Any],
    fine_tune: Callable[[list[str], str], dict[str, float]],
) -> Iterator[Planned]:
    """Do the trainings that the record lacks. Yields each one when it is done and in the record.

    A training that was stopped goes on. Of each, all but the model and its checkpoints stays in its folder.

    Args:
        plan: all trainings.
        words: the command line that all of them share.
        folder: of the comparison.
        record: what has been done so far; it is added to.
        fine_tune: trains with a command line into a folder and returns figures; called in a process of its own.
    """
    done = {(run["way"], run["k"], run["seed"]) for run in record["runs"]}
    for one in plan:
        what = {"way": one.way, "k": one.k, "seed": one.seed}
        if tuple(what.values()) in done:
            continue
        place = folder / one.folder
        figures = in_its_own_process(fine_tune, [*words, *one.words, "--resume=latest"], str(place))
        record["runs"].append(what | figures)
        write_whole(folder / "compare.json", json.dumps(record, indent=1) + "\n")
        models = {path for pattern in (*MODEL, *TOKENIZER, *CODE, CARD) for path in place.glob(pattern)}
        remove([path for path in written(place) if path in models])
        shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
        yield one


def table(runs: Sequence[dict[str, Any]], names: Sequence[str], key: str = "way") -> str:
    """A Markdown table: a row for each way and k, mean ± standard deviation over the seeds.

    Args:
        names: of the ways, in the order of the rows.
        key: the entry of a run that holds its way's name.
    """
    shown = {name: column for name, column in COLUMNS.items() if any(name in run for run in runs)}
    lines = [
        f"| pooling | k | {' | '.join(head for head, _, _ in shown.values())} |",
        "|---|--:|" + "--:|" * len(shown),
    ]
    for name, k in itertools.product(names, dict.fromkeys(run["k"] for run in runs)):
        if of_row := [run for run in runs if (run[key], run["k"]) == (name, k)]:
            lines.append(f"| {name} | {k} | {' | '.join(cell(of_row, column) for column in shown)} |")
    return "\n".join(lines)


def cell(runs: Sequence[dict[str, Any]], key: str) -> str:
    """The mean of a figure over runs, with its standard deviation if the column shows it."""
    _, decimals, with_spread = COLUMNS[key]
    values = [run[key] for run in runs if key in run]
    if not values:
        return ""
    if key == "train_seconds" and statistics.mean(values) < 10:
        decimals = 1
    mean = f"{statistics.mean(values):,.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if with_spread and len(values) > 1 else mean
