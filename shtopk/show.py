"""See what was kept: one HTML page for a document, its kept tokens, their weights and the prediction.

python -m shtopk.show CHECKPOINT FILE [--output page.html] [--trust-remote-code]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --paper: #fdfcf9; --ink: #23262c; --quiet: #6a6f79; --line: #e6e3da;
  --mark: 250 178 60; --accent: #b4570f; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #dcdee3; --quiet: #979ca6; --line: #2f333b;
  --mark: 226 138 40; --accent: #f2a75c; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 46rem;
  font: 1.0625rem/1.75 Charter, Georgia, "Iowan Old Style", "Liberation Serif", serif; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; }
h2, .facts, .legend, .classes, table { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h2 { font-size: .75rem; letter-spacing: .09em; text-transform: uppercase; color: var(--quiet); margin: 3rem 0 .75rem; }
.facts, .legend { color: var(--quiet); font-size: .875rem; line-height: 1.5; margin: 0; }
.classes { display: grid; grid-template-columns: fit-content(40%) 1fr max-content; gap: .4rem .9rem;
  align-items: center; font-size: .875rem; line-height: 1.4; margin: 1.75rem 0 0; color: var(--quiet); }
.classes .p { text-align: right; font-variant-numeric: tabular-nums; }
.classes .first { color: var(--ink); font-weight: 600; }
.classes b { color: var(--accent); font-weight: 500; }
.track { background: var(--line); border-radius: 3px; height: .5rem; overflow: hidden; }
.fill { background: var(--quiet); height: 100%; }
.first + .track .fill { background: var(--accent); }
.strip { position: relative; height: 1.25rem; margin: .9rem 0 1.75rem; background: var(--line); border-radius: 3px;
  overflow: hidden; }
.strip a { position: absolute; top: 0; bottom: 0; width: 3px; margin-left: -1px; background: var(--accent);
  opacity: .8; }
.document { white-space: pre-wrap; margin: 0; }
.document:empty::before { content: "There is no text."; color: var(--quiet); font-style: italic; }
.document span, .document mark { background: rgb(var(--mark) / calc(.08 + var(--w) * .45)); color: inherit;
  border-radius: 3px; padding: .1em 0; }
.document mark { background: rgb(var(--mark) / calc(.14 + var(--w) * .41)); padding: .1em .12em;
  box-shadow: inset 0 -2px 0 var(--accent); scroll-margin-top: 40vh; }
.document mark:target { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.45; }
td, th { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; color: var(--quiet); white-space: nowrap; width: 1%; }
td:nth-child(2) { width: 40%; }
td a { color: inherit; text-decoration-color: var(--accent); text-decoration-thickness: 2px;
  text-underline-offset: 3px; }
small { color: var(--quiet); font-variant-numeric: tabular-nums; }
"""

MOST_ROWS = 512  # slots listed in the table and the strip; more of them only make the page heavy
MOST_CLASSES = 12


@dataclass(frozen=True)
class Slot:
    """A kept vector: the index of its heaviest token, (index, weight) of the tokens it is made of, its score."""

    position: int
    tokens: Sequence[tuple[int, float]]
    score: float | None = None


def page(
    text: str,
    spans: Sequence[tuple[int, int]],
    slots: Sequence[Slot],
    probabilities: Sequence[tuple[str, float]],
    *,
    title: str,
    label: str | None = None,
    facts: Sequence[str] = (),
    smallest_weight: float = 0.01,
) -> str:
    """One HTML page, complete in itself and without scripts, with every text escaped.

    Args:
        text: the document.
        spans: for each token its (start, end) characters in the text; start == end for a token without text ([CLS]).
        slots: what was kept.
        probabilities: (class, probability in [0, 1]), any order.
        title: headline of the page.
        label: the document's true class, if known.
        facts: short remarks under the headline.
        smallest_weight: tokens of a smaller weight are left plain, which keeps the page of a long document small.

    Example:
        >>> "<mark" in page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 0.9), (0, 0.1)])], [("x", 1.0)], title="t")
        True
    """
    marked = _document(text, spans, slots, smallest_weight)
    ticks = "".join(
        f'<a href="#t{slot.position}" style="left:{100 * spans[slot.position][0] / len(text):.2f}%"></a>'
        for slot in slots[:MOST_ROWS]
        if _has_text(spans[slot.position])
    )
    rows = "".join(_row(text, spans, number, slot) for number, slot in enumerate(slots[:MOST_ROWS], 1))
    rest = f'<p class="legend">The first {MOST_ROWS} are listed.</p>' if len(slots) > MOST_ROWS else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="facts">{" · ".join(escape(fact) for fact in facts)}</p>
<div class="classes">{_classes(probabilities, label)}</div>
<h2>What was kept</h2>
<p class="legend">Underlined: the token that leads a slot. Shaded: the share that a token has in its slot. The strip
shows where in the document the kept tokens stand.</p>
<div class="strip">{ticks}</div>
<p class="document">{marked}</p>
<h2>The {len(slots)} vectors</h2>
<table>
<tr><th class="n">slot</th><th>leading token</th><th class="n">weight</th><th>others in it</th></tr>
{rows}
</table>
{rest}</body>
</html>
"""


def _has_text(span: tuple[int, int]) -> bool:
    return span[0] < span[1]


def _document(text: str, spans: Sequence[tuple[int, int]], slots: Sequence[Slot], smallest_weight: float) -> str:
    """The text, with its leading tokens in <mark> and the others of weight in <span>."""
    share: dict[int, tuple[float, int]] = {}  # token -> its largest weight, and in which slot
    for number, slot in enumerate(slots, 1):
        for token, weight in slot.tokens:
            if weight >= smallest_weight:
                share[token] = max(share.get(token, (0.0, 0)), (weight, number))
    leads = {slot.position: number for number, slot in enumerate(slots, 1)}
    body, done = [], 0
    for token in sorted(share.keys() | leads.keys()):
        start, end = spans[token]
        if start >= end or start < done:
            continue
        weight, number = share.get(token, (0.0, leads.get(token, 0)))
        score = slots[number - 1].score
        hover = f"token {token}, slot {number}, weight {weight:.3f}"
        hover += "" if score is None else f", score {score:.2f}"
        tag, place = ("mark", f' id="t{token}"') if token in leads else ("span", "")
        body += [
            escape(text[done:start]),
            f'<{tag}{place} style="--w:{weight:.2f}" title="{hover}">{escape(text[start:end])}</{tag}>',
        ]
        done = end
    return "".join([*body, escape(text[done:])])


def _classes(probabilities: Sequence[tuple[str, float]], label: str | None) -> str:
    """A bar for each class, the likeliest first, and a word beside the true one."""
    ranked = sorted(probabilities, key=lambda pair: -pair[1])
    return "".join(
        f'<div class="{"other" if place else "first"}">{escape(name)}{" <b>true class</b>" * (name == label)}</div>'
        f'<div class="track"><div class="fill" style="width:{100 * p:.1f}%"></div></div>'
        f'<div class="p">{100 * p:.1f} %</div>'
        for place, (name, p) in enumerate(ranked)
        if place < MOST_CLASSES or name == label
    )


def _row(text: str, spans: Sequence[tuple[int, int]], number: int, slot: Slot, most: int = 5) -> str:
    """The table's row of one slot: its leading token and the most important of the others."""
    ranked = sorted(slot.tokens, key=lambda pair: -pair[1])
    weight = next((share for token, share in ranked if token == slot.position), 0.0)
    others = [
        f"{_word(text, spans[token])} <small>{share:.2f}</small>"
        for token, share in ranked[:most]
        if token != slot.position and share >= 0.005
    ]
    lead = _word(text, spans[slot.position])
    if _has_text(spans[slot.position]):
        lead = f'<a href="#t{slot.position}">{lead}</a>'
    cells = f'<td class="n">{number}</td><td>{lead}</td><td class="n">{weight:.2f}</td><td>{", ".join(others)}</td>'
    return f"<tr>{cells}</tr>"


def _word(text: str, span: tuple[int, int], reach: int = 24) -> str:
    """A token's text, and in small the rest of the word that it is a piece of."""
    start, end = span
    if not _has_text(span):
        return "<small>special token</small>"
    before, after = start, end
    while start - before < reach and before > 0 and text[before - 1].isalnum() and text[start].isalnum():
        before -= 1
    while after - end < reach and after < len(text) and text[after].isalnum() and text[end - 1].isalnum():
        after += 1
    pieces = [f"<small>{escape(part)}</small>" if part else "" for part in (text[before:start], text[end:after])]
    return f"{pieces[0]}{escape(text[start:end])}{pieces[1]}"


def read_text(path: Path) -> str:
    """A file's text. Bytes that are no UTF-8 become U+FFFD, and a line on stderr says so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        print(f"{path} is not valid UTF-8 throughout; such bytes are shown as \ufffd", file=sys.stderr)
        return content.decode("utf-8", errors="replace")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shtopk.show", description="See which tokens of a text were kept.")
    parser.add_argument("checkpoint", help="folder that train.py wrote")
    parser.add_argument("file", type=Path, help="the document, a text file")
    parser.add_argument("--output", type=Path, help="page to write; by default FILE's name with .html, in this folder")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the model code inside the checkpoint")
    arguments = parser.parse_args(argv)
    try:
        text = read_text(arguments.file)
        try:
            from shtopk.integrations.transformers import describe, load_classifier
        except ImportError as error:
            raise ValueError(f"{error}; run pip install 'shtopk[train]'") from error

        model, tokenizer = load_classifier(arguments.checkpoint, trust_remote_code=arguments.trust_remote_code)
        shown = describe(model, tokenizer, text)
        output = arguments.output or Path(arguments.file.stem + ".html")
        try:
            output.write_text(page(**shown, title=arguments.file.name), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write {output}: {error.strerror}") from error
    except ValueError as error:
        print(f"shtopk.show: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    name, probability = max(shown["probabilities"], key=lambda pair: pair[1])
    print(f"{name} ({100 * probability:.1f} %), see {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
