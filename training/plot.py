"""A picture of a run: loss, metric and temperature against updates."""

from pathlib import Path

from matplotlib.figure import Figure

from shtopk.tasks.names import figure_as_text
from shtopk.training.history import is_evaluation, read_history


def plot(history: Path, metric: str, path: Path, *, lower_is_better: bool = False) -> None:
    """Draw the file of a `History`, with a metric such as "eval_accuracy". The suffix of path decides the format."""
    rows = read_history(history)
    updates = [row for row in rows if not is_evaluation(row)]
    evaluations = [row for row in rows if is_evaluation(row)]
    if not updates:
        return
    at = [row["update"] for row in updates]
    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, score, temperature = figure.subplots(3, 1, sharex=True)

    losses = [row["loss"] for row in updates]
    loss.plot(at, losses, color="C0", alpha=0.3, linewidth=1)
    loss.plot(at, smooth(losses), color="C0")
    loss.set_ylabel("training loss")
    loss.set_ylim(bottom=0)

    score.plot([row["update"] for row in evaluations], [row[metric] for row in evaluations], "o-", color="C2")
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


def smooth(values: list[float]) -> list[float]:
    """Exponential moving average over about a twentieth of the values, unbiased at the start."""
    weight, mean, total, out = 1 - 1 / (1 + len(values) / 20), 0.0, 0.0, []
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        out.append(mean / total)
    return out
