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
:root { --paper: #fdfcf9; --ink: #22252b; --quiet: #6d727c; --line: #e4e1d8; --mark: 196 88 28; --bar: #c4581c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191d; --ink: #dfe1e6; --quiet: #959aa5; --line: #30343c; --mark: 240 150 80; --bar: #f09650; }
}
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 0 auto; padding: 2.5rem 1.25rem 4rem;
  max-width: 46rem; font: 1.0625rem/1.75 Georgia, "Iowan Old Style", "Liberation Serif", serif; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 .25rem; }
h2, .facts, table, .legend, .classes { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h2 { font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; color: var(--quiet);
  margin: 2.5rem 0 .75rem; }
.facts, .legend { color: var(--quiet); font-size: .875rem; margin: 0; }
.classes { display: grid; grid-template-columns: max-content 1fr max-content; gap: .3rem .75rem; align-items: center;
  font-size: .9rem; margin: 1.5rem 0 0; }
.classes .track { background: var(--line); border-radius: 3px; height: .55rem; }
.classes .fill { background: var(--quiet); border-radius: 3px; height: 100%; min-width: 1px; }
.classes .first { font-weight: 600; }
.classes .first + .track .fill { background: var(--bar); }
.document { white-space: pre-wrap; overflow-wrap: anywhere; }
.document span { background: rgb(var(--mark) / calc(var(--w) * .45)); border-radius: 2px; }
.document mark { background: rgb(var(--mark) / calc(.12 + var(--w) * .5)); color: inherit; border-radius: 3px;
  padding: .05em .1em; box-shadow: inset 0 -2px 0 rgb(var(--mark)); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.4; }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--quiet); font-weight: 500; } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
td small { color: var(--quiet); }
"""


@dataclass(frozen=True)
class Slot:
    """A kept vector: the place of its heaviest token, and (token index, weight) of those it is made of."""

    position: int
    tokens: Sequence[tuple[int, float]]


def page(
    text: str,
    spans: Sequence[tuple[int, int]],
    slots: Sequence[Slot],
    probabilities: Sequence[tuple[str, float]],
    *,
    title: str,
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
        facts: short remarks under the headline.
        smallest_weight: tokens of a smaller weight are left plain, which keeps the page of a long document small.

    Example:
        >>> "<mark" in page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 0.9), (0, 0.1)])], [("x", 1.0)], title="t")
        True
    """
    weight = {token: share for slot in slots for token, share in slot.tokens if share >= smallest_weight}
    kept = {slot.position for slot in slots}
    body, done = [], 0
    for token, (start, end) in enumerate(spans):
        if start >= end or start < done or (token not in weight and token not in kept):
            continue
        tag = "mark" if token in kept else "span"
        share = weight.get(token, 0.0)
        body += [
            escape(text[done:start]),
            f'<{tag} style="--w:{share:.2f}" title="token {token}, weight {share:.3f}">',
            f"{escape(text[start:end])}</{tag}>",
        ]
        done = end
    body.append(escape(text[done:]))

    ranked = sorted(probabilities, key=lambda pair: -pair[1])
    classes = "".join(
        f'<div class="{"first" if i == 0 else "other"}">{escape(name)}</div>'
        f'<div class="track"><div class="fill" style="width:{100 * p:.1f}%"></div></div><div>{100 * p:.1f} %</div>'
        for i, (name, p) in enumerate(ranked[:12])
    )
    rows = "".join(
        f'<tr><td class="n">{slot.position}</td><td>{_ingredients(text, spans, slot)}</td></tr>' for slot in slots
    )
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
<div class="classes">{classes}</div>
<h2>The document</h2>
<p class="legend">Underlined: the token that leads a slot. Shaded: others mixed into one, the darker the more.</p>
<p class="document">{"".join(body)}</p>
<h2>The {len(slots)} vectors that were kept</h2>
<table><tr><th>token</th><th>made of (weight)</th></tr>{rows}</table>
</body>
</html>
"""


def _ingredients(text: str, spans: Sequence[tuple[int, int]], slot: Slot, most: int = 5) -> str:
    parts = [
        f"{escape(text[slice(*spans[token])]) or '<small>special token</small>'} <small>{share:.2f}</small>"
        for token, share in sorted(slot.tokens, key=lambda pair: -pair[1])[:most]
        if share >= 0.005
    ]
    return ", ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shtopk.show", description="See which tokens of a text were kept.")
    parser.add_argument("checkpoint", help="folder that train.py wrote")
    parser.add_argument("file", type=Path, help="the document, a text file")
    parser.add_argument("--output", type=Path, help="page to write; by default FILE's name with .html, in this folder")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the model code inside the checkpoint")
    arguments = parser.parse_args(argv)
    try:
        text = arguments.file.read_bytes().decode("utf-8", errors="replace")
        if "\ufffd" in text:
            print(f"{arguments.file} is not valid UTF-8 throughout; such bytes are shown as \ufffd", file=sys.stderr)
        from shtopk.integrations.transformers import load_classifier, show_document

        model, tokenizer = load_classifier(arguments.checkpoint, trust_remote_code=arguments.trust_remote_code)
        html = show_document(model, tokenizer, text, title=arguments.file.name)
        output = arguments.output or Path(arguments.file.stem + ".html")
        output.write_text(html, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"shtopk.show: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
