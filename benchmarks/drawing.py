"""The look of the pictures: SVG whose colours follow the reader's light or dark scheme.

A figure is drawn in stand-ins, one for each role, which `save` replaces by CSS variables. The file is the same, byte
for byte, for the same figures.
"""

import io
import re
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.figure import Figure

SCHEME = {  # role: its colour on white, and on dark grey
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#a0a8b2"),
    "grid": ("#dfe3e8", "#343b45"),
    "ours": ("#cf4307", "#ff8c4b"),
    "iterative": ("#2f69b0", "#79b0f5"),
    "hard": ("#1f857a", "#58c4b6"),
    "literal": ("#7d5ba6", "#bd9ce6"),
    "attention": ("#7d5ba6", "#bd9ce6"),
    "power": ("#9a6a00", "#d9a93c"),
}
COLOUR = {role: f"#0f0f{i:02x}" for i, role in enumerate(SCHEME, 1)}  # the stand-ins
FONT = "system-ui, sans-serif"
SIZE = 11.5  # points of all text
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shtopk",
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than what readers will see
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.titlelocation": "left",
    "axes.labelsize": SIZE,
    "axes.labelcolor": COLOUR["muted"],
    "axes.titlecolor": COLOUR["ink"],
    "axes.edgecolor": COLOUR["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": COLOUR["ink"],
    "xtick.color": COLOUR["muted"],
    "ytick.color": COLOUR["muted"],
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


def style() -> str:
    """The `<style>` of a picture: a variable for each role, in both schemes."""
    light, dark = ("".join(f"--{role}:{colours[i]};" for role, colours in SCHEME.items()) for i in (0, 1))
    return f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"


def write(path: Path, title: str, size: str, body: str) -> None:
    """Write an SVG. title: what it shows, for who cannot see it. size: the attributes of its size."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" {size}>'
    path.write_text(f"{head}\n<title>{escape(title)}</title>\n{style()}\n{body.strip()}\n</svg>\n", encoding="utf-8")


def save(figure: Figure, path: Path, title: str) -> None:
    """Write a figure that was made in `STYLE`; see `write`."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True)
    head, body = re.search(r"<svg ([^>]*)>(.*)</svg>", file.getvalue(), re.DOTALL).groups()
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace("'DejaVu Sans'", FONT)
    for role, stand_in in COLOUR.items():
        body = body.replace(stand_in, f"var(--{role})")
    write(path, title, " ".join(re.findall(r'(?:width|height|viewBox)="[^"]*"', head)), body)
