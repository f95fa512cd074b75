"""The tables of retrieval: a row for each way, and which of the differences between them are no accident."""

import itertools
import statistics

import numpy as np
from paired import Difference, interval, less_best
from ranking import OF_A_RANK, from_text
from retrieval_ways import ALL, WAYS

COLUMNS = {  # key of a run -> head of the column, decimals, whether the spread is shown
    "recall@1": ("recall@1", 3, True),
    "recall@10": ("recall@10", 3, True),
    "mrr": ("MRR", 3, True),
    "ndcg@10": ("nDCG@10", 3, True),
    "vectors": ("vectors", 0, False),
    "bytes": ("bytes", 0, False),
    "pool_ms": ("pooling, ms", 2, False),
    "train_seconds": ("training s", 0, False),
}
COMPARED = ("recall@1", "mrr")  # with bold and differences
WITHOUT_K = (ALL, 1)  # k of the rows that stand beside those of any k


def table(record: dict) -> str:
    """Markdown: for each task a row for each k and way, and one of differences for each way."""
    shown = {key: column for key, column in COLUMNS.items() if any(key in run for run in record["runs"])}
    parts, compared = [], False
    for task in dict.fromkeys(run["task"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["task"] == task]
        bold = {(k, key): best(record, task, k, key) for k in _sizes(runs) for key in COMPARED}
        facts = record["tasks"][task]
        lines = [
            f"**{task}**: {facts['documents']} documents of {facts['tokens']:.0f} tokens, {facts['queries']} queries, "
            f"{facts['encode_ms']:.0f} ms to encode a document\n",
            f"| pooling | k | {' | '.join(head for head, _, _ in shown.values())} |",
            "|---|--:|" + "--:|" * len(shown),
        ]
        ks = sorted({run["k"] for run in runs}, key=lambda k: (k != ALL, -k))
        for k, name in itertools.product(ks, _names(runs)):
            if group := [run for run in runs if (run["k"], run["way"]) == (k, name)]:
                beside = [k] if k not in WITHOUT_K else _sizes(runs)
                is_best = {key: all(name in bold[j, key] for j in beside) and bool(beside) for key in COMPARED}
                cells = [_emphasized(cell(group, key), is_best.get(key, False)) for key in shown]
                lines.append(f"| {name} | {k or 'all'} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
        if found := differences(record, task):
            compared = True
            parts.append(found)
    legend = f" {LEGEND}" if compared else ""
    return "\n\n".join(parts) + (
        f"\n\nVectors and bytes (float16) of a document in the index; time to pool one, beside encoding it. "
        f"{record['split'].title()} split, mean ± standard deviation over seeds {seeds(record)} of what is drawn or "
        f"trained.{legend} {_source(record)}\n"
    )


LEGEND = (
    "Bold: best, or within one standard error of the best, among the ways of this k and those without one (of these, "
    "with every k). Less the best: ± the standard error of the paired difference, over documents and seeds; in "
    "parentheses 95 % by a paired bootstrap over documents."
)


def differences(record: dict, task: str) -> str:
    """Markdown: what each way has less than the best of its k, with its standard error and its interval.

    Empty if not known.
    """
    runs = [run for run in record["runs"] if run["task"] == task]
    groups = list(itertools.product(sorted(_sizes(runs)), COMPARED))
    found = {(k, key): standing(record, task, k, key) for k, key in groups}
    if not any(found.values()):
        return ""
    heads = [f"{COLUMNS[key][0]} less the best, k = {k}" for k, key in groups]
    lines = [f"| pooling | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for name in _names(runs):
        cells = []
        for k, key in groups:
            less = found[k, key].get(name)
            if less is None:
                cells.append("")
            elif less == (0, 0, 0):
                cells.append("best")
            else:
                first = next(row for row, other in found[k, key].items() if other == (0, 0, 0))
                low, high = interval(
                    *(_results(competing(runs, k)[row], key) for row in (name, first)), owners(record, task)
                )
                cells.append(f"{less.mean:+.3f} ± {less.error:.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {_marked(name, runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(record: dict) -> str:
    """Markdown for the README: recall@1 of every way, for each task and k."""
    runs = record["runs"]
    tasks = sorted({run["task"] for run in runs}, reverse=True)
    groups = [(task, k, best(record, task, k, "recall@1")) for task, k in itertools.product(tasks, _sizes(runs))]
    lines = [
        f"| recall@1 | {' | '.join(f'{task}, k = {k}' for task, k, _ in groups)} |",
        "|---|" + "--:|" * len(groups),
    ]
    compared = any(names for _, _, names in groups)
    for name in _names(runs):
        cells = []
        for task, k, names in groups:
            rows = competing([run for run in runs if run["task"] == task], k).get(name, [])
            cells.append(_emphasized(cell(rows, "recall@1"), name in names))
        lines.append(f"| {_marked(name, runs) if compared else name} | {' | '.join(cells)} |")
    legend = "Bold: best, or within one paired standard error of the best of its column. " if compared else ""
    return "\n".join(lines) + f"\n\n{legend}{_source(record)}\n"


def best(record: dict, task: str, k: int, key: str) -> set[str]:
    """The ways that are best, or within one standard error of the best, among those of a k; none if not known."""
    return {name for name, less in standing(record, task, k, key).items() if less.is_best}


def standing(record: dict, task: str, k: int, key: str) -> dict[str, Difference]:
    """{way: its difference to the best} among the ways of a k and those without one; empty if not known."""
    rows = competing([run for run in record["runs"] if run["task"] == task], k)
    documents = owners(record, task)
    if documents is None:
        return {}
    kept = {name: runs for name, runs in rows.items() if all("ranks" in run for run in runs)}
    others = [statistics.mean(run[key] for run in runs) for name, runs in rows.items() if name not in kept]
    return less_best({name: _results(runs, key) for name, runs in kept.items()}, documents, others)


def competing(runs: list[dict], k: int) -> dict[str, list[dict]]:
    """{way: its runs} of those with this k, and of those without one."""
    return {
        name: found for name in _names(runs)
        if (found := [run for run in runs if run["way"] == name and run["k"] in (k, *WITHOUT_K)])
    }  # fmt: skip


def owners(record: dict, task: str) -> np.ndarray | None:
    """[queries] the number of each one's document; None of a record that does not say."""
    text = record["tasks"][task].get("queries_of_each")
    if text is None:
        return None
    counts = from_text(text)
    return np.arange(len(counts)).repeat(counts)


def seeds(record: dict) -> str:
    """The seeds of most rows that have several, and in parentheses whoever has others."""
    rows: dict[tuple, list[int]] = {}
    for run in record["runs"]:
        rows.setdefault((run["task"], run["k"], run["way"]), []).append(run["seed"])
    listed = {row: ", ".join(map(str, sorted(its))) for row, its in rows.items()}
    several = [listed[row] for row, its in rows.items() if len(its) > 1]
    most = statistics.mode(several or listed.values())
    others = {row: its for row, its in listed.items() if len(rows[row]) > 1 and its != most}
    found = []
    for way, its in dict.fromkeys((row[2], its) for row, its in others.items()):
        where = [row[:2] for row in others if (row[2], others[row]) == (way, its)]
        whole = len(where) == sum(row[2] == way for row in rows)  # with every task and k
        found += [f"{way}: {its}"] if whole else [f"{task}, k = {k or 'all'}, {way}: {its}" for task, k in where]
    return most + (f" ({'; '.join(found)})" if found else "")


def cell(runs: list[dict], key: str) -> str:
    _, decimals, with_spread = COLUMNS[key]
    values = [run[key] for run in runs if key in run]
    if not values or (key == "train_seconds" and not any(run["trained"] for run in runs)):
        return ""
    mean = f"{statistics.mean(values):,.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if with_spread and len(values) > 1 else mean


def _results(runs: list[dict], key: str) -> list[np.ndarray]:
    return [OF_A_RANK[key](from_text(run["ranks"])) for run in runs]


def _names(runs: list[dict]) -> list[str]:
    """Of the ways that ran, in the order of retrieval_ways.py; others after them, as they ran."""
    known = {way.name: place for place, way in enumerate(WAYS)}
    return sorted(
        dict.fromkeys(run["way"] for run in runs),
        key=lambda name: known.get(name.split(", evaluated by")[0], len(known)),
    )


def _sizes(runs: list[dict]) -> list[int]:
    return sorted({run["k"] for run in runs} - {*WITHOUT_K})


def _marked(name: str, runs: list[dict]) -> str:
    """A way's name, with the number of its vectors if that is no table's k."""
    k = next(run["k"] for run in runs if run["way"] == name)
    return f"{name} ({'all vectors' if k == ALL else 'one vector'})" if k in WITHOUT_K else name


def _emphasized(cell: str, is_best: bool) -> str:
    return f"**{cell}**" if is_best and cell else cell


def _source(record: dict) -> str:
    return f"`{record['command']}` on {record['device']}, torch {record['torch']}."
