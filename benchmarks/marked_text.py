"""A text as a picture: set in lines, with the tokens that were kept marked as by a pen."""

import re
from pathlib import Path
from xml.sax.saxutils import escape

from drawing import FONT, write

COLUMNS = 64  # characters of a line
ADVANCE, LINE, SIZE = 9.0, 27, 15  # of a character and a line, and the height of the letters
MARGIN = 22
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


def draw_marked(run: dict, path: Path) -> None:
    """Draw the text of a run of kept.py, its marks as strong as the weights, and the class below."""
    spans = lines_of(run["text"])
    width = 2 * MARGIN + COLUMNS * ADVANCE
    bottom = MARGIN + LINE * len(spans)
    parts = [
        f'<rect x="1" y="1" width="{width - 2:g}" height="{bottom + 64}" rx="10" fill="none" stroke="var(--grid)"/>'
    ]
    for i, (start, end) in enumerate(spans):
        inside = [one for one in run["kept"] if start <= one["start"] < end and one["end"] > one["start"]]
        y = MARGIN + LINE * i
        parts += [mark(one, start, y) for one in inside]
        parts.append(text_of(run["text"], start, end, inside, y + 18))
    parts += [
        f'<path d="M{MARGIN} {bottom + 14}H{width - MARGIN:g}" stroke="var(--grid)"/>',
        f'<text x="{MARGIN}" y="{bottom + 44}" font-family="{FONT}" font-size="18" fill="var(--ink)">'
        f"{summary(run, bold=True)}</text>",
    ]
    size = f'width="{width:g}" height="{bottom + 66}" viewBox="0 0 {width:g} {bottom + 66}"'
    title = f"A page of software documentation that hides two sentences of news: {summary(run)}"
    write(path, title, size, "\n".join(parts))


def summary(run: dict, bold: bool = False) -> str:
    """What the model makes of the text, in one line."""
    name = run["class"]
    shown = f'<tspan font-weight="700" fill="var(--ours)">{escape(name)}</tspan>' if bold else name
    probability = "> 0.99" if run["probability"] >= 0.995 else f"{run['probability']:.2f}"
    return f"{run['k']} of {run['tokens']} tokens kept → {shown} ({escape(probability) if bold else probability})"


def lines_of(text: str) -> list[tuple[int, int]]:
    """Where the lines of a text start and end, broken between words."""
    lines: list[tuple[int, int]] = []
    for word in re.finditer(r"\S+", text):
        if lines and word.end() - lines[-1][0] <= COLUMNS:
            lines[-1] = lines[-1][0], word.end()
        else:
            lines.append(word.span())
    return lines


def mark(kept: dict, start: int, y: int) -> str:
    x = MARGIN + ADVANCE * (kept["start"] - start)
    width = ADVANCE * (kept["end"] - kept["start"])
    return (
        f'<rect x="{x - 3:g}" y="{y + 1}" width="{width + 6:g}" height="{LINE - 3}" rx="4" fill="var(--ours)" '
        f'fill-opacity="{0.5 * kept["weight"]:.3f}"/>'
    )


def text_of(text: str, start: int, end: int, kept: list[dict], y: int) -> str:
    """A line, as wide as its marks take it to be in any font."""
    parts, at = [], start
    for one in kept:
        parts.append(escape(text[at : one["start"]]))
        style = 'fill="var(--ink)" font-weight="700"' if one["weight"] > 0.5 else 'fill="var(--ink)"'
        parts.append(f"<tspan {style}>{escape(text[one['start'] : one['end']])}</tspan>")
        at = one["end"]
    parts.append(escape(text[at:end]))
    return (
        f'<text x="{MARGIN}" y="{y}" font-family="{MONOSPACE}" font-size="{SIZE}" fill="var(--muted)" '
        f'textLength="{ADVANCE * (end - start):g}" lengthAdjust="spacingAndGlyphs">{"".join(parts)}</text>'
    )
