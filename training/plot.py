"""A picture of a run: losses, metric and temperature against updates."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shtopk.tasks.names import figure_as_text
from shtopk.training.history import read_history


def plot(history: Path, metric: str, path: Path, *, lower_is_better: bool = False) -> None:
    """Draw the file of a `History`, with a metric such as "eval_accuracy". The suffix of path decides the format."""
    rows = read_history(history)
    updates, evaluations, probes = ([row for row in rows if name in row] for name in ("loss", metric, "probe_loss"))
    if not updates:
        return
    at = [row["update"] for row in updates]
    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, score, temperature = figure.subplots(3, 1, sharex=True)

    losses = [row["loss"] for row in updates]
    loss.plot(at, losses, color="C0", alpha=0.3, linewidth=1)
    loss.plot(at, smooth(losses), color="C0", label="training")
    _points(loss, evaluations, "eval_loss", "o-", label="validation")
    few = f"{probes[0]['probe_documents']} validation documents" if probes else None
    _points(loss, probes, "probe_loss", "o:", label=few, markerfacecolor="none", linewidth=1)
    loss.set_ylabel("loss")
    loss.set_ylim(bottom=0)
    loss.legend(frameon=False, fontsize=9)

    _points(score, evaluations, metric, "o-")
    _points(score, probes, metric.replace("eval_", "probe_"), "o:", markerfacecolor="none", linewidth=1)
    if evaluations:
        best = (min if lower_is_better else max)(evaluations, key=lambda row: row[metric])
        score.annotate(figure_as_text(metric, best[metric]), (best["update"], best[metric]), xytext=(0, -14),
                       ha="center", textcoords="offset points")  # fmt: skip
    if not lower_is_better:
        score.set_ylim(top=min(score.get_ylim()[1], 1.005))  # no metric but errors exceeds 1
    score.set_ylabel(metric.removeprefix("eval_") + ", validation")

    temperature.plot(at, [row["temperature"] for row in updates], color="C1")
    temperature.set_yscale("log")
    temperature.set_ylabel("temperature")
    temperature.set_xlabel("update")
    entropy = temperature.twinx()
    entropy.plot(at, [row["selection_entropy"] for row in updates], color="C3", alpha=0.6)
    entropy.set_ylabel("selection entropy, nats", color="C3")
    entropy.set_ylim(bottom=0)
    for axes in (loss, score, temperature):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _points(axes: Axes, rows: list[dict], name: str, line: str, **style) -> None:
    """Draw one measure of validation documents, where there is any."""
    found = [(row["update"], row[name]) for row in rows if name in row]
    if found:
        axes.plot(*zip(*found, strict=True), line, color="C2", **style)


def smooth(values: list[float]) -> list[float]:
    """Exponential moving average over about a twentieth of the values, unbiased at the start."""
    weight, mean, total, out = 1 - 1 / (1 + len(values) / 20), 0.0, 0.0, []
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        out.append(mean / total)
    return out
