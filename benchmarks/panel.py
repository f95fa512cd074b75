"""A panel of a picture: its logarithmic axes, its lines, and their names where they end."""

import math
from collections.abc import Iterable

from drawing import COLOUR, SIZE
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter


def plain(number: float, _: int = 0) -> str:
    return f"{number:,g}"


def doubling(panel: Axes, numbers: Iterable[float], every: int = 1) -> None:
    """A logarithmic x axis with marks at these powers of two, the last one and every so many before it."""
    numbers = sorted(set(numbers))
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(numbers[::-1][::every]))
    panel.xaxis.set_minor_locator(FixedLocator([]))
    panel.xaxis.set_major_formatter(FuncFormatter(plain))


def milliseconds(panel: Axes, low: float, high: float) -> None:
    """A logarithmic y axis with marks at powers of ten."""
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    tens = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    panel.yaxis.set_major_locator(FixedLocator([10.0**i for i in tens]))
    panel.yaxis.set_minor_locator(FixedLocator([]))
    panel.yaxis.set_major_formatter(
        FuncFormatter(lambda ms, _: f"{plain(ms)} ms" if ms < 1000 else f"{plain(ms / 1000)} s")
    )


def line(panel: Axes, points: list[tuple[float, float]], role: str, dashed: bool = False) -> float:
    """Draw a line; returns where it ends."""
    width, dashes = (3 if role == "ours" else 1.6), (0, (3, 2)) if dashed else "-"
    zorder = 3 if role == "ours" else 2
    panel.plot(*zip(*points, strict=True), color=COLOUR[role], linewidth=width, linestyle=dashes, zorder=zorder)
    return points[-1][1]


def label_ends(panel: Axes, ends: Iterable[tuple[float, str, str]], x: float = 1.02, gap: float = SIZE * 1.25) -> None:
    """Name lines where they end, right of a panel: (y, name, role), kept so many points apart.

    The panel's place and limits must be final.
    """
    ends = sorted(ends)
    scale = panel.figure.dpi / 72
    wanted = [panel.transData.transform((1, y))[1] / scale for y, _, _ in ends]
    box = panel.get_window_extent()
    for at, (_, name, role) in zip(apart(wanted, gap), ends, strict=True):
        y = (at * scale - box.y0) / box.height
        weight = "bold" if role == "ours" else "normal"
        panel.text(x, y, name, color=COLOUR[role], transform=panel.transAxes, va="center_baseline", weight=weight)


def apart(wanted: list[float], gap: float) -> list[float]:
    """Sorted places, as near to the wanted ones as a gap between any two allows.

    >>> apart([0.0, 1.0, 9.0], gap=3.0)
    [-1.0, 2.0, 9.0]
    """
    groups: list[list[float]] = []  # of places that touch, as wanted
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _first(groups[-1], gap) - _first(groups[-2], gap) < gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_first(group, gap) + i * gap for group in groups for i in range(len(group))]


def _first(group: list[float], gap: float) -> float:
    """Where a group that is spread around its mean begins."""
    return sum(group) / len(group) - gap * (len(group) - 1) / 2
