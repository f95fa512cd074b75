"""The frame of every page: complete in itself, without scripts, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fdfcf9; --ink: #23262c; --quiet: #6a6f79; --line: #e6e3da;
  --mark: 250 178 60; --accent: #b4570f; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #dcdee3; --quiet: #979ca6; --line: #2f333b;
  --mark: 226 138 40; --accent: #f2a75c; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 46rem;
  font: 1.0625rem/1.75 Charter, Georgia, "Iowan Old Style", "Liberation Serif", serif; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; }
h2, .facts, .legend, .classes, .numbers, table { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h2 { font-size: .75rem; letter-spacing: .09em; text-transform: uppercase; color: var(--quiet); margin: 3rem 0 .75rem; }
.facts, .legend { color: var(--quiet); font-size: .875rem; line-height: 1.5; margin: 0; }
.classes { display: grid; grid-template-columns: fit-content(40%) 1fr max-content; gap: .4rem .9rem;
  align-items: center; font-size: .875rem; line-height: 1.4; margin: 1.75rem 0 0; color: var(--quiet); }
.classes .p { text-align: right; font-variant-numeric: tabular-nums; }
.classes .first { color: var(--ink); font-weight: 600; }
.classes b, .numbers b { color: var(--accent); font-weight: 500; }
.kind { margin: 1.75rem 0 0; }
.kind + .classes { margin: .75rem 0 0; }
.numbers { display: grid; grid-template-columns: fit-content(40%) max-content 1fr; gap: .2rem 1.1rem;
  align-items: baseline; font-size: .875rem; line-height: 1.4; margin: .5rem 0 0; color: var(--quiet); }
.number { color: var(--ink); font-size: 1.5rem; font-weight: 600; text-align: right;
  font-variant-numeric: tabular-nums; }
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
.document mark a { scroll-margin-top: 40vh; }
.document mark:is(:target, :has(:target)) { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.45; }
td, th { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; color: var(--quiet); white-space: nowrap; width: 1%; }
td:nth-child(2) { width: 40%; }
td a { color: inherit; text-decoration-color: var(--accent); text-decoration-thickness: 2px;
  text-underline-offset: 3px; }
small { color: var(--quiet); font-variant-numeric: tabular-nums; }
"""


def frame(title: str, facts: Sequence[str], body: str, style: str = "") -> str:
    """An HTML page that loads nothing from elsewhere. All but the body is escaped here.

    Args:
        title: headline.
        facts: short remarks under the headline.
        body: HTML, which is escaped already.
        style: CSS beside the common one.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<h1 dir="auto">{escape(title)}</h1>
<p class="facts">{" · ".join(escape(fact) for fact in facts)}</p>
{body}</body>
</html>
"""
