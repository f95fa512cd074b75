"""The tables of teachers: a row for each way to teach, a column for each number of vectors and way to pool."""

import statistics
from collections.abc import Iterable

import numpy as np
from paired import best_rows
from retrieval_table import owners

POOLED_BY = {"select_and_merge": "select and merge", "successive_halving": "the tournament", "hard": "hard top-k"}
MERGED = "select_and_merge"


def table(record: dict) -> str:
    """Markdown: a table for each task; in bold what is best of its column, or within one standard error."""
    parts = []
    for task in tasks(record):
        columns = [(task, k, operator) for k in sizes(record) for operator in POOLED_BY]
        heads = [f"k = {k}, {POOLED_BY[operator]}" for _, k, operator in columns]
        parts.append(f"**{task}**\n\n{_rows(record, 'taught by', columns, heads)}")
    return "\n\n".join(parts) + _source(record)


def summary(record: dict) -> str:
    """Markdown for a page: all tasks, pooled by select and merge."""
    columns = [(task, k, MERGED) for task in tasks(record) for k in sizes(record)]
    heads = [f"{task}, k = {k}" for task, k, _ in columns]
    return _rows(record, "taught by, pooled by select and merge", columns, heads) + _source(record)


def tasks(record: dict) -> list[str]:
    """Those with all teachers first."""
    return sorted(dict.fromkeys(run["task"] for run in record["runs"]), key=lambda task: task.startswith("search"))


def sizes(record: dict) -> list[int]:
    return sorted({run["k"] for run in record["runs"]})


def answers(record: dict, task: str, k: int, operator: str) -> dict[str, list[np.ndarray]]:
    """{teacher: for each seed whether each answer is right}."""
    found: dict[str, list[np.ndarray]] = {}
    for run in record["runs"]:
        if (run["task"], run["k"], run["pooled_by"]) == (task, k, operator):
            found.setdefault(run["teacher"], []).append(np.array([int(right) for right in run["right"]]))
    return found


def _rows(record: dict, corner: str, columns: list[tuple[str, int, str]], heads: Iterable[str]) -> str:
    lines = [f"| {corner} | {' | '.join(heads)} |", "|---|" + "--:|" * len(columns)]
    found = [answers(record, *column) for column in columns]
    bold = [best_rows(column, owners(record, task)) for column, (task, _, _) in zip(found, columns, strict=True)]
    for teacher in dict.fromkeys(name for column in found for name in column):
        cells = [_cell(column.get(teacher, []), teacher in best) for column, best in zip(found, bold, strict=True)]
        lines.append(f"| {teacher} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(runs: list[np.ndarray], is_best: bool) -> str:
    if not runs:
        return ""
    shares = [float(right.mean()) for right in runs]
    text = f"{statistics.mean(shares):.3f}" + (f" ± {statistics.stdev(shares):.3f}" if len(shares) > 1 else "")
    return f"**{text}**" if is_best else text


def _source(record: dict) -> str:
    seeds = ", ".join(map(str, sorted({run["seed"] for run in record["runs"]})))
    return (
        f"\n\nThe share of right answers, in a search of queries whose document comes first: test split, mean ± "
        f"standard deviation over seeds {seeds}. Bold: best, or within one paired standard error of the best of its "
        f"column. `{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )
