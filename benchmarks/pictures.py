"""Draw the pictures of the documentation from the figures in benchmarks/results/.

python benchmarks/pictures.py
"""

import json
import statistics
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import matplotlib
from drawing import COLOUR, SIZE, STYLE, save
from marked_text import draw_marked
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter
from panel import doubling, label_ends, line, milliseconds, plain
from paper import AUTHORS, BATCH
from prompt_recall_table import exact
from record import RESULTS, ROOT

PICTURES = ROOT / "docs" / "pictures"
WIDTH = 6.6  # inches
ACCURACY = {  # variant: its name in the picture, its role
    "successive halving": ("successive halving", "ours"),
    "iterative top-k": ("iterative top-k", "iterative"),
    "softmax attention, k queries": ("softmax attention", "attention"),
    "hard top-k, gated": ("hard top-k, gated", "hard"),
    "every (n/k)-th token": ("every (n/k)-th token", "muted"),
    "first k tokens": ("first k tokens", "muted"),
}
WITHOUT_K = {"oracle: mean of the evidence": "oracle", "mean of all tokens": "mean of all tokens"}
RECALL = {  # way: its name in the picture, its role
    "successive halving": ("successive halving", "ours"),
    "iterative top-k": ("iterative top-k", "iterative"),
    "means of stretches, trained": ("means of stretches, trained", "hard"),
    "kvpress: key difference": ("key difference (kvpress)", "power"),
    "expected attention": ("expected attention", "literal"),
    "random tokens": ("random tokens", "muted"),
}
Found = dict[str, dict[str, list[float]]]  # way -> k -> a figure for each seed
TIMES = {  # method of paper.py: its name in the picture, its role
    "relative (ours)": ("ours", "ours"),
    "hard top-k": ("hard top-k", "hard"),
    "power (authors' code)": ("power boost", "power"),
    "literal Algorithm 2": ("literal Alg. 2", "literal"),
    "iterative, as published": ("iterative", "iterative"),
}
N, K = 2048, 128  # of the cost against k, and of the time against n
AUTHORS_OWN = [("iterative", "theirs, iterative", "iterative"), ("successive halving", "theirs, halving", "literal")]
PANELS = {  # of the paper's figure
    "relative (ours)": "ours",
    "power (authors' code)": "power boost",
    "iterative, as published": "iterative",
    "hard top-k": "hard top-k",
}
POWERS = {2**4: "2⁴", 2**9: "2⁹", 2**14: "2¹⁴"}  # marks of its n


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def figure_of(height: float, **places: float) -> Figure:
    """An empty figure; places: where its panels are, as shares of it."""
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(**places)
    return figure


def with_spread(panel: Axes, found: Found, names: dict[str, tuple[str, str]]) -> list[tuple[float, str, str]]:
    """Draw a line for each way: its mean against k, in a band of its standard deviation over seeds.

    Args:
        found: {way: {k: its figures}}.
        names: {way: (its name in the picture, its role)}; the first is drawn last, on top.

    Returns:
        Where each line ends, for `label_ends`.
    """
    ends = []
    for way, (name, role) in reversed(names.items()):
        own = sorted((int(k), numbers) for k, numbers in found[way].items())
        at, means = [k for k, _ in own], [statistics.mean(numbers) for _, numbers in own]
        spread = [statistics.stdev(numbers) if len(numbers) > 1 else 0.0 for _, numbers in own]
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        panel.fill_between(at, low, high, color=COLOUR[role], alpha=0.18, linewidth=0)
        panel.plot(at, means, color=COLOUR[role], marker="o", markersize=4, linewidth=3 if role == "ours" else 1.6)
        ends.append((means[-1], name, role))
    return ends


def accuracy(results: Path, path: Path) -> None:
    record = read(results / "compare-needle.json")
    found: Found = {}
    for run in record["runs"]:
        found.setdefault(run["variant"], {}).setdefault(run["k"], []).append(run["accuracy"])
    figure = figure_of(3.7, left=0.085, right=0.71, bottom=0.15, top=0.9)
    panel = figure.subplots()
    ends = []
    for variant, name in WITHOUT_K.items():
        (mean,) = map(statistics.mean, found[variant].values())
        panel.axhline(mean, color=COLOUR["muted"], linewidth=1.4, linestyle=(0, (4, 3)))
        ends.append((mean, name, "muted"))
    ks = sorted({int(k) for variant in ACCURACY for k in found[variant]})
    ends += with_spread(panel, found, ACCURACY)
    doubling(panel, ks)
    panel.set_xlim(ks[0] / 1.1, ks[-1] * 1.1)
    panel.set_ylim(0, 1)
    panel.set_title("Accuracy where two sentences of 2,000 tokens matter")
    panel.set_xlabel("k, the vectors that are kept")
    label_ends(panel, ends)
    save(figure, path, "Accuracy against k on the needle task, where two sentences of news hide in 2,000 tokens: "
         "successive halving and its rivals, mean and standard deviation over seeds")  # fmt: skip


def recall(results: Path, path: Path) -> None:
    record = read(results / "prompt-recall.json")
    found: Found = {}
    for run in record["runs"]:
        found.setdefault(run["way"], {}).setdefault(run["k"], []).append(exact(run))
    figure = figure_of(3.7, left=0.085, right=0.66, bottom=0.15, top=0.9)
    panel = figure.subplots()
    whole = statistics.mean(found["all tokens"][0])
    panel.axhline(whole, color=COLOUR["muted"], linewidth=1.4, linestyle=(0, (4, 3)))
    ends = [(whole, "all tokens", "muted"), *with_spread(panel, found, RECALL)]
    doubling(panel, record["k"])
    panel.set_xlim(record["k"][0] / 1.1, record["k"][-1] * 1.1)
    panel.set_ylim(0, 1)
    panel.set_title(f"Facts recalled from a prompt of {record['words']} words")
    panel.set_xlabel("k, the vectors of the prompt that are left")
    label_ends(panel, ends)
    save(figure, path, f"Share of facts that a small Llama recalls from a prompt of {record['words']} words, against "
         "the k vectors that are left: successive halving and others, mean and spread over seeds")  # fmt: skip


def cost(results: Path, path: Path) -> None:
    record = read(results / "paper-full.json")
    figure = figure_of(3.5, left=0.135, right=0.75, bottom=0.16, top=0.9)
    panel = figure.subplots()
    ends, times, ks = [], [], set()
    for method, (name, role) in TIMES.items():
        if role == "power":
            continue
        points = sorted((r["k"], 1e3 * r["seconds"]) for r in record["runs"] if (r["method"], r["n"]) == (method, N))
        ends.append((line(panel, points, role), name, role))
        ks |= {k for k, _ in points}
        times += [ms for _, ms in points]
    doubling(panel, ks, every=3)
    milliseconds(panel, min(times) / 1.5, max(times) * 1.5)
    panel.set_title(f"Time of a forward pass on a CPU: {N:,} tokens, batch {BATCH}")
    panel.set_xlabel("k, the vectors that are kept")
    label_ends(panel, ends)
    save(figure, path, f"Time of a forward pass against k at n = {N:,}, batch {BATCH}, on {record['device']}: "
         "ours, hard top-k, literal Algorithm 2 and iterative top-k")  # fmt: skip


def time(results: Path, path: Path) -> None:
    records = [read(results / "paper-full.json"), read(results / "gpu" / "paper-full.json")]
    cpu, gpu = (record["device"] for record in records)
    titles = (f"{cpu}: forward pass, batch {BATCH}, k = {K}", f"{gpu}; dashed: the paper's authors, on their GPU")
    figure = figure_of(5.4, left=0.135, right=0.72, bottom=0.105, top=0.945, hspace=0.36)
    panels = figure.subplots(2, 1)
    for panel, record, title in zip(panels, records, titles, strict=True):
        ends, ns = [], set()
        for method, (name, role) in TIMES.items():
            cells = [run for run in record["runs"] if (run["method"], run["k"]) == (method, K)]
            points = sorted((run["n"], 1e3 * run["seconds"]) for run in cells)
            ends.append((line(panel, points, role), name, role))
            ns |= {n for n, _ in points}
        if panel is panels[-1]:
            for theirs, name, role in AUTHORS_OWN:
                points = sorted((one["n"], 1e3 * one[theirs]) for one in AUTHORS["cells"] if one["k"] == K)
                ends.append((line(panel, points, role, dashed=True), name, role))
        doubling(panel, ns, every=2)
        milliseconds(panel, 0.06, 800)
        panel.set_title(title)
        label_ends(panel, ends)
    panels[-1].set_xlabel("n, the tokens")
    save(figure, path, f"Time of a forward pass, batch {BATCH}, against n at k = {K}, on {cpu} and on {gpu}: "
         "ours beside hard top-k, the power boost, literal Algorithm 2, iterative top-k and "
         "the authors' published figures")  # fmt: skip


def annealing(results: Path, path: Path) -> None:
    record = read(results / "annealing.json")
    runs, n, marked = record["runs"], record["n"], record["marked"]
    updates = [run["update"] for run in runs]
    figure = figure_of(4.6, left=0.13, right=0.97, bottom=0.125, top=0.93, hspace=0.12)
    tokens, temperature = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    step = updates[1] - updates[0]
    for token in range(n):
        role = "ours" if token in marked else "ink"
        levels = [round(20 * run["weights"][token]) / 20 for run in runs]
        for start, count, level in stretches(levels):
            place = (updates[start] - step / 2, token - 0.44)
            cell = Rectangle(place, count * step, 0.88, facecolor=COLOUR[role], alpha=level, linewidth=0)
            tokens.add_patch(cell)
    tokens.set_ylim(n - 0.4, -0.6)
    tokens.grid(False)
    tokens.spines[["left", "bottom"]].set_visible(False)
    tokens.tick_params(length=0, labelbottom=False)
    tokens.yaxis.set_major_locator(FixedLocator(marked))
    tokens.yaxis.set_major_formatter(FuncFormatter(lambda token, _: f"token {token + 1:.0f}"))
    for label in tokens.get_yticklabels():
        label.set_color(COLOUR["ours"])
    tokens.set_title(f"Weight of {n} tokens while training, k = {record['k']}, the marked ones in colour")
    temperature.plot(updates, [run["temperature"] for run in runs], color=COLOUR["ink"])
    temperature.set_yscale("log")
    temperature.yaxis.set_major_locator(FixedLocator([0.1, 1]))
    temperature.yaxis.set_minor_locator(FixedLocator([]))
    temperature.yaxis.set_major_formatter(FuncFormatter(plain))
    temperature.set_xlim(updates[0] - step / 2, updates[-1] + step / 2)
    temperature.set_xlabel("update")
    temperature.text(0.99, 0.8, "temperature, from soft to sharp", transform=temperature.transAxes, ha="right")
    save(figure, path, f"Weights of {n} tokens of one held-out sequence while training, those of the {len(marked)} "
         "marked tokens in colour, and the temperature, which falls")  # fmt: skip


def stretches(levels: list[float]) -> Iterator[tuple[int, int, float]]:
    """Start, length and level of every run of equal levels above 0."""
    start = 0
    for level, equal in groupby(levels):
        count = len(list(equal))
        if level > 0:
            yield start, count, level
        start += count


def paper(results: Path, path: Path) -> None:
    record = read(results / "paper-full.json")
    runs = record["runs"]
    ks = sorted({run["k"] for run in runs})[::2]
    figure = figure_of(4.6, left=0.15, right=0.98, bottom=0.12, top=0.83, hspace=0.12, wspace=0.14)
    axes = figure.subplots(2, len(PANELS), sharex=True, sharey="row")
    strengths = [0.4 + 0.6 * i / (len(ks) - 1) for i in range(len(ks))]
    for row, measure in zip(axes, ("seconds", "nccs"), strict=True):
        for panel, method in zip(row, PANELS, strict=True):
            for i, k in enumerate(ks):
                points = sorted((r["n"], r[measure]) for r in runs if (r["method"], r["k"]) == (method, k))
                if measure == "seconds":
                    points = [(n, 1e3 * s) for n, s in points]
                role = "ours" if "ours" in method else "ink"
                panel.plot(*zip(*points, strict=True), color=COLOUR[role], alpha=strengths[i])
            doubling(panel, POWERS)
            panel.xaxis.set_major_formatter(FuncFormatter(lambda n, _: POWERS[n]))
    for panel, name in zip(axes[0], PANELS.values(), strict=True):
        panel.set_title(name)
    times = [1e3 * run["seconds"] for run in runs if run["method"] in PANELS]
    milliseconds(axes[0, 0], min(times) / 1.5, max(times) * 1.5)
    axes[1, 0].set_ylim(0, 1.04)
    axes[0, 0].set_ylabel("time")
    axes[1, 0].set_ylabel("nCCS")
    figure.supxlabel("n, the tokens", color=COLOUR["muted"], fontsize=SIZE, x=0.565)
    handles = [Line2D([], [], color=COLOUR["ink"], alpha=strength) for strength in strengths]
    figure.legend(handles, [f"k = {ks[0]}", *map(plain, ks[1:])], ncols=len(ks), loc="upper right", frameon=False,
                  handlelength=1.2, columnspacing=1.1, handletextpad=0.5, borderaxespad=0.2)  # fmt: skip
    save(figure, path, f"The paper's evaluation on {record['device']}: time of a batch of {BATCH} and nCCS against n "
         "for ours, the power boost, iterative top-k and hard top-k, a line for every other k")  # fmt: skip


def kept(results: Path, path: Path) -> None:
    record = read(results / "kept.json")
    draw_marked(record["runs"][0] | {"k": record["k"]}, path)


DRAWN = {"accuracy": accuracy, "annealing": annealing, "cost": cost, "kept": kept, "paper": paper, "recall": recall,
         "time": time}  # fmt: skip


def draw(folder: Path = PICTURES, results: Path = RESULTS) -> None:
    """Draw every picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, picture in DRAWN.items():
            picture(results, folder / f"{name}.svg")


if __name__ == "__main__":
    draw()
