"""The tables and figures that pages show, by the names that stand in the pages (fill_pages.py puts them there)."""

import json
import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import between
import big_data
import budgets
import compare
import finetune_gpu
import growth
import merging
import peers_table
import planted
import predict
import prompt_recall_table
import prompt_speed
import retrieval_table
import scaling
import speed
import speed_gpu
import teachers_table
from record import RESULTS

OURS = "successive halving"
OUR_WAYS = (OURS, "select and merge")  # as the names of rows begin
SEARCHES = ("retrieval", "retrieval-summaries")


@cache
def record(name: str) -> dict:
    """A file of benchmarks/results/."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def mean(name: str, key: str, part: str = "runs", **where: Any) -> float:
    """Of a figure, over the runs in which all these fields are as given."""
    found = [run[key] for run in record(name)[part] if all(run[field] == value for field, value in where.items())]
    if not found:
        raise LookupError(f"expected runs of {where} in {name}.json, found none")
    return statistics.mean(found)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def needle(variant: str, k: str, key: str = "accuracy") -> float:
    return mean("compare-needle", key, variant=variant, k=k)


def inside(way: str, tokens: int) -> float:
    """Accuracy of BBC News, pooled between the layers."""
    return mean("between", "accuracy", way=way, tokens=tokens)


def pace(tokens: int, key: str, name: str = "between-speed") -> float:
    """How many times as fast, pooled between the layers."""
    speeds = [mean(name, key, "pace", way=way, tokens=tokens) for way in (OURS, between.NOWHERE)]
    return speeds[0] / speeds[1]


def between_with_speed() -> dict:
    """Both records in one."""
    learned, speed = record("between"), record("between-speed")
    return learned | {"pace": speed["pace"], "command": f"{learned['command']}` and `{speed['command']}"}


def searched(task: str) -> str:
    """The record that has a task of the retrieval benchmark."""
    return next(name for name in SEARCHES if task in record(name)["tasks"])


def recall(task: str, way: str, k: int) -> float:
    return mean(searched(task), "recall@1", task=task, way=way, k=k)


def tokens(task: str) -> float:
    """Of a document of the retrieval benchmark."""
    return record(searched(task))["tasks"][task]["tokens"]


def summary(key: str, k: int | None, length: int = 16384) -> float:
    return mean("scaling", key, length=length, k=k)


def ratio(way: str, other: str, n: int, k: int, key: str = "seconds", name: str = "speed") -> float:
    """A way's time in units of another's, from the table of speeds.

    key: "seconds" is with memory as malloc gives it, "seconds_memory_kept" where the process keeps what it frees.
    """
    cells = speed.cells_of(record(name))
    return cells[n, k, way][key] / cells[n, k, other][key]


def ratios(way: str, other: str, key: str = "seconds", name: str = "speed") -> list[float]:
    """The same at each n and k of the table."""
    return [ratio(way, other, n, k, key, name) for n, k in speed.SHAPES]


def default_price(other: str) -> list[float]:
    """The default's time in units of another's, in both runs that measured it."""
    return [price for name in ("speed", "speed-default") for price in ratios(speed.DEFAULT, other, name=name)]


def fresh() -> list[float]:
    """Ours in units of a bare top-k's, at the n where malloc takes fresh pages for the gradient of the values."""
    return [ratio(OURS, speed.HARD, n, k) for n, k in speed.SHAPES if n == 16384]


def on_gpu(column: int) -> list[float]:
    """A column of the table of speeds on a GPU."""
    rows = [line.split("|") for line in speed_gpu.summary(record("gpu/speed-gpu")).splitlines()[2:8]]
    return [float(row[column]) for row in rows]


def span(figures: list[float]) -> str:
    return f"{min(figures):.1f} to {max(figures):.1f}"


def best_rival(name: str, key: str, row: str, **where: Any) -> str:
    """The best of the other ways to pool to as many vectors, and its figure."""
    runs = [run for run in record(name)["runs"] if all(run[field] == value for field, value in where.items())]
    rivals = {run[row] for run in runs if not run[row].startswith(OUR_WAYS)}
    found = {rival: statistics.mean(run[key] for run in runs if run[row] == rival) for rival in rivals}
    best = max(found, key=found.__getitem__)
    return f"{found[best]:.3f}, {best}"


def index(task: str) -> tuple[float, float, int, str]:
    """What all vectors find and what 8 do, their number, and the best rival."""
    rival = best_rival(searched(task), "recall@1", "way", task=task, k=8)
    return recall(task, "all tokens", 0), recall(task, OURS, 8), 8, rival


def pays() -> str:
    """Markdown: seven uses, without and with pooling, the best rival, and whether it pays."""
    generating = [summary("generate_seconds", k) for k in (64, None)]
    memory = [summary("generate_mib", k) for k in (64, None)]
    training = [summary("train_seconds", k) for k in (64, None)]
    rows = [
        ("topic of two sentences in 2,000 tokens, accuracy", needle("mean of all tokens", "all"), needle(OURS, "8"), 8,
         best_rival("compare-needle", "accuracy", "variant", k="8"), "yes: finds what a mean drowns"),
        ("topic of an article, accuracy; pooled after two layers of six", inside(between.NOWHERE, 512),
         inside(OURS, 512), 64, "",
         f"yes: training {pace(512, 'training'):.1f} times as fast, inference {pace(512, 'inference'):.1f} times"),
        ("topic of an article, the encoder frozen and pooled at its end",
         mean("compare-bbc", "accuracy", variant="mean of all tokens"),
         mean("compare-bbc", "accuracy", variant=OURS, k="8"), 8,
         best_rival("compare-bbc", "accuracy", "variant", k="8"), "no: the topic is all over the text"),
        ("summarizing two documents of 16,384 tokens, seconds; not trained", generating[1], generating[0], 64, "",
         f"yes, and {memory[1] / memory[0]:.1f} times less memory; "
         f"training {training[1] / training[0]:.1f} times as fast"),
        ("search for two sentences in 500 tokens: the right document first", *index("needle"),
         f"yes: an index {tokens('needle') / 8:.0f} times smaller"),
        ("search for a function by its summary line: the right one first", *index("docstrings"),
         f"yes: an index {tokens('docstrings') / 8:.0f} times smaller finds nearly as much"),
        ("search for any sentence of an article: the right one first", *index("bbc"),
         f"an index {tokens('bbc') / 8:.0f} times smaller, but clusters find more"),
    ]  # fmt: skip
    lines = [
        "| what is asked for | without | pooled | to k | best rival | does it pay? |",
        "|---|--:|--:|--:|---|---|",
    ]
    for what, unpooled, pooled, k, rival, verdict in rows:
        cells = [f"{figure:.1f}" if "seconds" in what else f"{figure:.3f}" for figure in (unpooled, pooled)]
        lines.append(f"| {what} | {cells[0]} | {cells[1]} | {k} | {rival} | {verdict} |")
    return "\n".join(lines) + (
        "\n\nOn a CPU, with MiniLM. Without: in rows 1 and 3 the mean of all tokens, in searches all vectors. "
        "Best rival: of the other ways to as many vectors ([peers](docs/peers.md)); in row 2, at 256 tokens, a gated "
        "hard top-k is as accurate and a little faster. Commands and all figures: "
        "[benchmarks](docs/benchmarks.md)."
    )


def trained_summarizers() -> str:
    """Markdown: what `train.py` reached on the summarization tasks, and the best lead."""
    rows = [("train-docstrings", "name_and_first_8_words", "the function's name and the first 8 words"),
            ("train-rfc-small", "first_100_words", "the first 100 words")]  # fmt: skip
    heads = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    lines = [f"| | {' | '.join(heads.values())} |", "|---|" + "--:|" * len(heads)]
    commands = []
    for name, lead, words in rows:
        found = record(name)
        ours = {key: found[f"test_{key}"] for key in found["baselines"][lead] if f"test_{key}" in found}
        task = found["arguments"]["task"]
        for what, figures in ((f"{task}, the model", ours), (f"{task}, {words}", found["baselines"][lead])):
            cells = [
                f"{figures[key]:.3f} ({figures[key + '_low']:.3f} to {figures[key + '_high']:.3f})" for key in heads
            ]
            lines.append(f"| {what} | {' | '.join(cells)} |")
        commands.append(f"`{found['command']}` ({found['test_documents']} test documents, {found['updates']} updates)")
    return "\n".join(lines) + f"\n\nIn parentheses: 95 % confidence over documents. {', '.join(commands)}."


TABLES: dict[str, Callable[[], str]] = {
    "pays": pays,
    "compare-needle": lambda: compare.summary(record("compare-needle")),
    "compare-bbc": lambda: compare.summary(record("compare-bbc")),
    "compare-docstrings": lambda: compare.summary(record("compare-docstrings")),
    "trained-summarizers": trained_summarizers,
    "between": lambda: between.table(between_with_speed()),
    "scaling": lambda: scaling.table(record("scaling")),
    "retrieval": lambda: retrieval_table.summary(record("retrieval")),
    "retrieval-summaries": lambda: retrieval_table.summary(record("retrieval-summaries")),
    "retrieval-trained": lambda: retrieval_table.summary(record("retrieval-trained")),
    "speed": lambda: speed.summary(record("speed")),
    "teachers": lambda: teachers_table.summary(record("teachers")),
    "planted-small": lambda: planted.table(record("planted-small")),
    "planted-large": lambda: planted.table(record("planted-large")),
    "growth": lambda: growth.table(record("growth")),
    "big-data": lambda: big_data.table(record("big-data")),
    "prompt-recall": lambda: prompt_recall_table.table(record("prompt-recall")),
    "prompt-speed": lambda: prompt_speed.table(record("prompt-speed")),
    "predict": lambda: predict.table(record("predict")),
    "finetune-gpu": lambda: finetune_gpu.table(record("gpu/finetune-gpu")),
    "budgets": lambda: budgets.table(record("budgets-needle")),
    "merging": lambda: merging.table(record("merging")),
    "peers-cost": lambda: peers_table.cost(record("peers")),
    "peers-checks": lambda: peers_table.checks(record("peers")),
    "peers-quality": lambda: peers_table.quality(record("peers")),
    "peers-absent": lambda: peers_table.absent(record("peers")),
    "speed-gpu": lambda: speed_gpu.summary(record("gpu/speed-gpu")),
}

FIGURES: dict[str, Callable[[], str]] = {
    "between.512.training": lambda: f"{pace(512, 'training'):.1f}",
    "between.512.accuracy": lambda: f"{inside(OURS, 512):.3f}",
    "between.512.unpooled": lambda: f"{inside(between.NOWHERE, 512):.3f}",
    "needle.halving.k8": lambda: percent(needle(OURS, "8")),
    "needle.hard.k8": lambda: percent(max(needle(f"hard top-k, {how}", "8") for how in ("gated", "straight-through"))),
    "needle.mean": lambda: percent(needle("mean of all tokens", "all")),
    "retrieval.needle.tokens": lambda: f"{tokens('needle'):.0f}",
    "retrieval.docstrings.tokens": lambda: f"{tokens('docstrings'):.0f}",
    "retrieval.needle.halving": lambda: percent(recall("needle", OURS, 8)),
    "retrieval.needle.all": lambda: percent(recall("needle", "all tokens", 0)),
    "finetune.4096.training": lambda: f"{pace(4096, 'training', 'gpu/finetune-gpu'):.1f}",
    "speed.least": lambda: f"{min(ratios(OURS, speed.HARD, 'seconds_memory_kept')):.2g}",
    "speed.most": lambda: f"{max(ratios(OURS, speed.HARD, 'seconds_memory_kept')):.2g}",
    "speed.soft": lambda: f"{max(ratios('softmax, T = 4', OURS)):.2g}",
    "speed.sharp.most": lambda: f"{max(ratios(OURS, speed.HARD)):.2g}",
    "speed.gated": lambda: span(ratios(OURS, speed.GATED)),
    "speed.gated.default": lambda: span(default_price(speed.GATED)),
    "speed.gated.start": lambda: span(ratios("softmax, T = 4", speed.GATED)),
    "speed.default.most": lambda: f"{max(default_price(speed.HARD)):.2g}",
    "speed.start.most": lambda: f"{max(ratios('softmax, T = 4', speed.HARD)):.2g}",
    "speed.not.in.c": lambda: span(ratios(speed.TENSORS, OURS)),
    "speed.fresh.least": lambda: f"{min(fresh()):.2g}",
    "speed.fresh.most": lambda: f"{max(fresh()):.2g}",
    "speed.fresh.iterative": lambda: f"{ratio(speed.ITERATIVE, OURS, 16384, 128):.0f}",
    "merging.ms": lambda: f"{1000 * merging.seconds(record('merging'), 2048, 32, merging.MERGE):.1f}",
    "merging.ward": lambda: f"{merging.ratio(record('merging'), 2048, 32, merging.WARD, merging.MERGE):.0f}",
    "gpu.sharp": lambda: span(on_gpu(5)),
    "gpu.eval": lambda: span(on_gpu(6)),
    "gpu.soft": lambda: span(on_gpu(7)),
    "gpu.eager": lambda: span(on_gpu(8)),
}
