"""The tables of peers.py: what each costs, what it can do, what it learns, and what could not be had."""

import json
import statistics
from collections.abc import Iterable

from peers_ways import BASELINE, WAYS, Way
from record import RESULTS

BATCHES = ("forward", "forward and backward")
CHECKS = {"padding": "padding", "any_k": "k = 7 of 100", "gradient": "gradient to scores", "twice": "twice the same"}
ELSEWHERE = {  # head of a column -> file of results, field of the row, the figure, and which runs
    "needle: accuracy": ("compare-needle", "variant", "accuracy", {"k": "8"}),
    "search for a needle: recall@1": ("retrieval", "way", "recall@1", {"k": 8, "task": "needle"}),
    "search for any sentence: recall@1": ("retrieval", "way", "recall@1", {"k": 8, "task": "bbc"}),
}
PLANTED = ("recall", "loss")


def table(record: dict) -> str:
    """Markdown: all tables."""
    parts = [cost(record), checks(record), quality(record)]
    return "\n\n".join(parts) + f"\n\nWhat could not be measured:\n\n{absent(record)}\n"


def shown(record: dict) -> list[Way]:
    """The ways that could be run."""
    ran = {run["way"] for run in record["runs"] if run["part"] == "checks" and "error" not in run}
    return [way for way in WAYS if way.name in ran]


def cost(record: dict) -> str:
    """Markdown: time as a ratio to the baseline's, and peak memory."""
    shapes = [tuple(shape) for shape in record["sizes"]["shapes"]]
    found = {(run["way"], run["n"], run["what"]): run for run in record["runs"] if run["part"] == "time"}
    peaks = {run["way"]: run["peak_mib"] for run in record["runs"] if run["part"] == "memory"}
    heads = [f"n = {n:,}, k = {k}" for n, k in shapes]
    lines = [f"| | {' | '.join(heads)} | MiB |", "|---|" + "--:|" * (len(shapes) + 1)]
    for way in shown(record):
        cells = []
        for n, _ in shapes:
            pair = [found.get((way.name, n, what)) for what in BATCHES]
            cells.append(" / ".join(to_digits(run["ratio"]) if run else "" for run in pair) if any(pair) else "")
        cells.append(f"{max(0.0, peaks[way.name]):,.0f}" if way.name in peaks else "")
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    batch, depth = record["sizes"]["batch"], record["sizes"]["depth"]
    return "\n".join(lines) + (
        f"\n\nTime of forward / of forward and backward, in units of {BASELINE} in the same turn, medians; batch "
        f"{batch}, d = {depth}, float32, scores given, temperature 1. MiB: peak of forward and backward{at(record)}. "
        f"Empty: not measured, what grows with n times n on purpose. {measured(record)}"
    )


def at(record: dict) -> str:
    """Where memory was measured."""
    places = {(run["n"], run["k"]) for run in record["runs"] if run["part"] == "memory"}
    return "".join(f" at n = {n:,}, k = {k}" for n, k in places)


def to_digits(ratio: float) -> str:
    """Two digits of a small ratio, no decimals of a large one."""
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"


def checks(record: dict) -> str:
    """Markdown: where the code is from, and what was found by running it."""
    found = {run["way"]: run for run in record["runs"] if run["part"] == "checks"}
    lines = [f"| | from | {' | '.join(CHECKS.values())} |", "|" + "---|" * (len(CHECKS) + 2)]
    for way in shown(record):
        run = found[way.name]
        cells = [f"{way.source} {run.get('version', '')}".strip(), *(run[name].partition(":")[0] for name in CHECKS)]
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nPadding changes nothing where a mask says so, or by scores that are low there; no: it does. Gradient: "
        f'in float64, beside finite differences; "none": the scores learn nothing. Fails: with an error, which '
        f"peers.json has. {measured(record)}"
    )


def quality(record: dict) -> str:
    """Markdown: planted tokens, and what the other benchmarks say of the same way."""
    own, planted = runs_of(record["runs"], "way"), runs_of(stored("planted-small")["runs"], "method")
    heads = [f"planted tokens: {key}" for key in PLANTED] + list(ELSEWHERE)
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    commands = {name: stored(name)["command"] for name, *_ in ELSEWHERE.values()}
    for way in shown(record):
        learned = [run for run in own.get(way.name, []) if run["part"] == "quality"] or planted.get(way.planted, [])
        cells = [spread([run[key] for run in learned]) for key in PLANTED]
        for name, field, key, where in ELSEWHERE.values():
            row = way.needle if name == "compare-needle" else way.retrieval
            runs = [run for run in stored(name)["runs"] if run[field] == row and where.items() <= run.items()]
            cells.append(f"{statistics.mean(run[key] for run in runs):.3f}" if runs else "")
        if any(cells):
            lines.append(f"| {way.name} | {' | '.join(cells)} |")
    told = [f"`{command}`" for command in commands.values()]
    return "\n".join(lines) + (
        "\n\nPlanted tokens: the small task of planted.py, mean ± standard deviation over seeds; recall of the marked "
        "tokens, and the loss (0 is perfect, 1 learned nothing). Those that this library or torch has are from "
        f"`{stored('planted-small')['command']}`, the others from the command below. The other columns with 8 "
        f"vectors: {', '.join(told)}. Empty: not trained. {measured(record)}"
    )


def absent(record: dict) -> str:
    """Markdown: a line for each peer that could not be had, or gave something else."""
    failed = {run["way"]: run["error"] for run in record["runs"] if "error" in run}
    sources = {way.name: way.source for way in WAYS}
    lines = [f"- {way} ({sources[way]}): {reason}" for way, reason in (record["absent"] | failed).items()]
    return "\n".join(lines) or "- nothing"


def runs_of(runs: Iterable[dict], field: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for run in runs:
        found.setdefault(run[field], []).append(run)
    return found


def spread(figures: list[float]) -> str:
    if not figures:
        return ""
    return f"{statistics.mean(figures):.2f}" + (f" ± {statistics.stdev(figures):.2f}" if len(figures) > 1 else "")


def stored(name: str) -> dict:
    """A file of benchmarks/results/."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def measured(record: dict) -> str:
    return f"`{record['command']}` on {record['device']}, torch {record['torch']}."
