"""One checkpoint at many settings of its pooling, without training: a table, a picture, the smallest good k."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from torch import Tensor, nn

from shtopk.integrations.decoders.installation import find_stack
from shtopk.pooling import poolings
from shtopk.tasks import DataArguments
from shtopk.tasks.names import figure_as_text
from shtopk.tasks.preprocess import lengths_of
from shtopk.tasks.rouge import confidence_interval
from shtopk.topk import TopK
from shtopk.training.arguments import EvaluationArguments
from shtopk.training.console import refusing
from shtopk.training.evaluation import predict_one
from shtopk.training.examination import examine
from shtopk.training.memory import peak_memory_of
from shtopk.training.slots import check_count
from shtopk.training.trained import Trained

UNPOOLED = "all tokens"  # the way of a model that pools nothing


class Setting(NamedTuple):
    """Options of a pooling; None: the checkpoint's own. k = None: no pooling at all."""

    k: int | float | None
    operator: str | None = None
    temperature: float | None = None

    @property
    def pooling(self) -> dict[str, Any]:
        """The setting as arguments of `load_checkpoint`."""
        if self.k is None:
            return {"unpooled": True}
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def way(self) -> str:
        """The setting in words, without its k."""
        if self.k is None:
            return UNPOOLED
        named = [
            self.operator or "operator as trained",
            *([] if self.temperature is None else [f"T = {self.temperature:g}"]),
        ]
        return ", ".join(named)


def settings_of(ks: Sequence[int | float], operators: Sequence[str], temperatures: Sequence[float]) -> list[Setting]:
    """Every k with every operator and temperature; no pooling comes last."""
    ways = itertools.product(operators or (None,), temperatures or (None,), ks)
    return [*(Setting(k, operator, temperature) for operator, temperature, k in ways), Setting(None)]


@contextmanager
def decoder_seconds(model: Any) -> Iterator[list[float]]:
    """Inside this context the time in a summarizer's decoder adds up in the only number of the list."""
    spent, started = [0.0], [0.0]

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter()

    def begin(*_: Any) -> None:
        started[0] = now()

    def end(*_: Any) -> None:
        spent[0] += now() - started[0]

    decoder = model.get_decoder()
    handles = [decoder.register_forward_pre_hook(begin), decoder.register_forward_hook(end)]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def smallest_within_noise(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the pooled rows: (the one that keeps the fewest tokens among those as good as the best, the best).

    A row is as good as the best if the 95 % interval of their difference holds 0. The interval is over documents that
    both answered (paired bootstrap). The rows have "scores", a figure of every document (see `Measured`), whose mean
    compares them.
    """
    pooled = [row for row in rows if row["k"] is not None]
    best = max(pooled, key=lambda row: (mean_score(row), -row["kept"]))
    for row in sorted(pooled, key=lambda row: (row["kept"], -mean_score(row))):
        worse = np.subtract(best["scores"], row["scores"])
        low, _ = confidence_interval(worse[:, None])
        if low[0] <= 0:
            return row, best
    return best, best


def mean_score(row: dict[str, Any]) -> float:
    """The mean of a row's scores, in which those of equal figures are equal whatever was rounded on the way."""
    return round(float(np.mean(row["scores"])), 12)


@contextmanager
def vectors_kept(model: Any) -> Iterator[list[Tensor]]:
    """Inside this context the list is given, for each batch that is read, to how many vectors each document is pooled
    in the end, [B], whatever pools before: windows, or layers of the encoder.
    """
    found: list[Tensor] = []
    last: list[Tensor] = []

    def remember(_module: Any, _inputs: Any, pooled: TopK) -> None:
        last[:] = [pooled.assignment.mask.sum(-1)]

    def note(_module: Any, _args: Any, given: dict[str, Any], _output: Any) -> None:
        if last or given.get("attention_mask") is not None:
            found.append(last.pop() if last else given["attention_mask"].sum(-1))  # too short to be pooled

    reader, own = model, vars(model)
    if model.config.is_encoder_decoder:
        reader = model.get_encoder()  # which a summarizer of ours makes anew at each call
        own["get_encoder"] = lambda *_, **__: reader
    handles = [pooling.register_forward_hook(remember) for pooling in poolings(model)]
    handles.append(reader.register_forward_hook(note, with_kwargs=True))
    try:
        yield found
    finally:
        own.pop("get_encoder", None)
        for handle in handles:
            handle.remove()


def kept_of_prompts(model: nn.Module, lengths: np.ndarray) -> float:
    """How many tokens a language model keeps on average, of prompts of these lengths; those that it keeps whole at the
    end of a prompt count.
    """
    whole = find_stack(model).prompt_pooling.keep_last

    def kept(n: int) -> int:
        left = max(n - whole, 0)
        for pooling in poolings(model):
            left = min(left, pooling.slots_for(left))
        return left + min(n, whole)

    return float(np.mean([kept(n) for n in lengths.tolist()]))


def mean_kept(trained: Trained, lengths: np.ndarray, vectors: Sequence[Tensor]) -> float:
    """How many tokens are kept on average, of documents of these lengths.

    Args:
        vectors: what `vectors_kept` found on this process.
    """
    if find_stack(trained.model) is not None:
        return kept_of_prompts(trained.model, lengths)
    if not poolings(trained.model):
        return float(lengths.mean())
    counts = torch.cat([*vectors])
    total, documents = trained.accelerator.reduce(torch.stack([counts.sum(), counts.new_tensor(len(counts))])).tolist()
    return total / documents


def verdict(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """One line: the smallest k that is as good as the best, as far as these documents tell."""
    found, best = smallest_within_noise(rows)
    smallest, highest = (f"k = {row['k']} ({row['way']})" for row in (found, best))
    line = (
        f"The smallest k within the noise of the best: {smallest}, {metric} {figure_as_text(metric, found['quality'])}"
    )
    return f"{line}. The best: {highest}, {figure_as_text(metric, best['quality'])}."


def table(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """A Markdown table with a row for each setting."""
    decodes = any(row.get("decoder_seconds") is not None for row in rows)
    columns = [
        "pooling",
        "k",
        "tokens kept",
        metric,
        "95 % interval",
        "documents/s",
        "peak MiB",
        *(["decoder s"] if decodes else []),
    ]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "--:|" * (len(columns) - 1)]
    for row in rows:
        low, high = row["interval"]
        cells = [row["way"], "" if row["k"] is None else f"{row['k']}", f"{row['kept']:.3g}",
                 figure_as_text(metric, row["quality"]),
                 f"{figure_as_text(metric, low)} to {figure_as_text(metric, high)}",
                 f"{row['documents_per_second']:.3g}",
                 "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"]  # fmt: skip
        if decodes:
            cells.append("" if row["decoder_seconds"] is None else f"{row['decoder_seconds']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], metric: str, path: Path) -> None:
    """Draw quality against documents per second: a line for each way to pool, a point for each k."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        of_way = sorted((row for row in rows if row["way"] == way), key=lambda row: (row["k"] is None, row["k"] or 0))
        x, y = ([row[key] for row in of_way] for key in ("documents_per_second", "quality"))
        bars = [[row["quality"] - row["interval"][0] for row in of_way],
                [row["interval"][1] - row["quality"] for row in of_way]]  # fmt: skip
        axes.errorbar(x, y, bars, marker="*" if way == UNPOOLED else "o", markersize=6, capsize=2, linewidth=1.2,
                      elinewidth=0.8, color="0.3" if way == UNPOOLED else f"C{i}", label=way)  # fmt: skip
        for row, right, top in zip(of_way, x, y, strict=True):
            if row["k"] is not None:
                axes.annotate(f"{row['k']}", (right, top), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(ScalarFormatter())
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.set_xlabel("documents per second")
    axes.set_ylabel(f"{metric}, with 95 % intervals")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def rows_of(
    checkpoint: str, data: DataArguments, arguments: EvaluationArguments, settings: Sequence[Setting]
) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Yield (row of the table, name of its metric, all figures) for each setting, one after the other.

    Input that cannot be used is refused in one line. A model that pools nothing has one setting only.
    """
    first: Trained | None = None
    for setting in settings:
        trained = Trained(checkpoint, data, arguments, **setting.pooling)
        if first is None:
            first = trained
        else:  # read and tokenised once
            trained.texts, trained.encoded = first.texts, first.encoded
        lengths = lengths_of(trained.encoded[trained.split], "input_ids").to_numpy()
        if trained is first:
            with refusing(ValueError):
                for one in settings:
                    check_count("k", one.k or 0, int(lengths.max()))
        predict_one(trained, trained.split)
        memory = peak_memory_of(trained.accelerator.device)
        timed = decoder_seconds(trained.model) if trained.model.config.is_encoder_decoder else nullcontext()
        with timed as spent, vectors_kept(trained.model) as vectors:
            results, scores, _ = examine(trained, baselines=False)
        metric = next(name for name in trained.task.selectors if name in results["intervals"])
        row = {
            "way": setting.way,
            "k": setting.k,
            "kept": mean_kept(trained, lengths, vectors),
            "quality": results["metrics"][metric],
            "interval": results["intervals"][metric],
            "documents_per_second": results["speed"]["documents_per_second"],
            "peak_mib": None if memory is None else memory.read(),
            "decoder_seconds": spent[0] if spent else None,
            "scores": scores,
        }
        yield row, metric, {name: results[name] for name in ("checkpoint", "data", "device", "mixed_precision")}
