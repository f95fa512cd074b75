"""The page of a summary or a completion: for each of its tokens, which kept tokens it came from.

The page has no scripts. Each of these tokens is the label of a radio button; a CSS rule for each button sets the
custom properties that shade the document (--t7 for token 7) and show the details (--d3 for button 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from shtopk.show.document import MOST_ROWS, Slot, Span, drawn_as_one, linked_word, marked_text, strip, vectors
from shtopk.show.frame import frame

STYLE = """
.summary { background: var(--paper); margin: 1.75rem 0 0; padding: .25rem 0 1rem; border-bottom: 1px solid var(--line);
  z-index: 1; }
@media (min-height: 44rem) and (min-width: 40rem) { .summary { position: sticky; top: 0; }
  .output { max-height: 30vh; overflow-y: auto; } }
.output { font-size: 1.375rem; line-height: 1.6; margin: 0; padding: .2rem .25rem; white-space: pre-wrap; }
.output:empty::before { content: "Nothing was written."; color: var(--quiet); font-style: italic; }
.token { position: relative; cursor: pointer; border-radius: 3px; padding: .05em 0;
  box-shadow: inset 0 -3px 0 rgb(var(--mark) / var(--c)); }
.token:hover { background: rgb(var(--mark) / .3); }
.token:has(:checked) { background: var(--accent); color: var(--paper); }
.token:has(:focus-visible) { outline: 2px solid var(--ink); outline-offset: 2px; }
.token input { position: absolute; left: 0; bottom: 0; width: 1px; height: 1px; margin: 0; opacity: 0; }
.whole { white-space: nowrap; border-radius: 1em; padding: .1rem .7rem;
  border: 1px solid var(--line); box-shadow: none; }
.reference, .bar, .detail, .whole { font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
.reference { color: var(--quiet); font-size: .875rem; line-height: 1.5; margin: .5rem .25rem 0; }
.reference b { font-weight: 500; color: var(--accent); }
.bar { display: flex; gap: .9rem; align-items: baseline; justify-content: space-between; margin: .6rem .25rem .3rem;
  font-size: .8125rem; color: var(--quiet); }
.detail { font-size: .875rem; line-height: 1.45; min-height: 10.25rem; margin: 0 .25rem; }
.detail p { margin: .3rem 0 .5rem; color: var(--quiet); }
.detail p b { color: var(--ink); font-weight: 600; }
.sources { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .6rem 2rem; }
.source { display: grid; grid-template-columns: minmax(0, 1fr) 5rem 3.25rem; gap: 0 .6rem; align-items: center;
  align-content: start; }
.source > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.source h3 { grid-column: 1 / -1; font-size: .75rem; font-weight: 500; color: var(--quiet); margin: 0; }
.source .p, .tokens .p { text-align: right; color: var(--quiet); font-variant-numeric: tabular-nums; }
.source a, .tokens td a { color: inherit; text-decoration-color: var(--accent); text-underline-offset: 3px; }
.source:first-child .fill { background: var(--accent); }
.strip a { opacity: calc(.25 + .75 * var(--a)); }
.document { line-height: 1.875rem; }
.document span { background: rgb(var(--mark) / calc(.03 + var(--a) * .5)); }
.document mark { background: rgb(var(--mark) / calc(.06 + var(--a) * .5));
  box-shadow: inset 0 -2px 0 rgb(var(--mark) / calc(.45 + var(--a) * .55)); }
.tokens td:nth-child(2) { width: auto; }
.tokens label { cursor: pointer; font-weight: 600; }
.tokens td:first-child, .tokens .p { white-space: nowrap; }
"""

MOST_SHADED = 24  # tokens of the document that a token of the summary shades


@dataclass(frozen=True)
class OutputToken:
    """A token of a summary or a completion, and how much each kept vector contributed to it.

    Attributes:
        text: with the space before it; the texts of all tokens joined are the summary or the completion.
        attention: the decoder's share for each slot; they sum to 1.
        pointing: the copy head's share for each slot; they sum to 1. None without a copy head.
        copying: 1 - g, with g the copy head's gate, in [0, 1].
        copied: how much of the token's probability came from copying, in [0, 1].
    """

    text: str
    attention: Sequence[float]
    pointing: Sequence[float] | None = None
    copying: float = 0.0
    copied: float = 0.0

    @property
    def shares(self) -> Sequence[float]:
        """The share of each slot: pointing and attention, mixed by `copied`."""
        if self.pointing is None:
            return self.attention
        both = zip(self.pointing, self.attention, strict=True)
        return [self.copied * pointed + (1 - self.copied) * attended for pointed, attended in both]


def summary_page(
    text: str,
    spans: Sequence[Span],
    slots: Sequence[Slot],
    tokens: Sequence[OutputToken],
    *,
    title: str,
    reference: str | None = None,
    facts: Sequence[str] = (),
    smallest_weight: float = 0.01,
    what: str = "summary",
    reader: str = "the decoder",
) -> str:
    """Draw the page of a document that was summarized, or of a prompt that was completed.

    Args:
        text: the document.
        spans: for each token its (start, end) characters in the text; start == end for a token without text ([CLS]).
        slots: what was kept.
        tokens: what was written.
        title: headline of the page.
        reference: another one to compare with.
        facts: short remarks under the headline.
        smallest_weight: tokens below it are not shaded, which keeps the page of a long document small.
        what: what the tokens are, as the page calls it.
        reader: who saw the kept vectors alone, as the page calls it.

    Returns:
        One HTML page, complete in itself and without scripts, with every text escaped.

    Example:
        >>> tokens = [OutputToken("b", [1.0])]
        >>> "<mark" in summary_page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 1.0)])], tokens, title="t")
        True
    """
    shown = list(tokens[:MOST_ROWS])
    choices = list(enumerate([_whole(shown), *shown])) if shown else []
    first = {token: group[0] for group in drawn_as_one(spans, slots, smallest_weight) for token in group}
    shaded = {number: _shades(token.shares, slots, first) for number, token in choices}
    somewhere = {place for shades in shaded.values() for place in shades}

    def style(place: int) -> str:
        place = first.get(place, place)
        return f";--a:var(--t{place},0)" if place in somewhere else ";--a:0"

    how = ", by pointing as far as it was copied, by attention otherwise"
    copies = any(token.pointing is not None for token in shown)
    output = "".join(_token(number, token) for number, token in choices[1:])
    output += escape("".join(token.text for token in tokens[MOST_ROWS:]))
    details = "".join(_detail(number, token, what, copies, text, spans, slots) for number, token in choices)
    compared = (
        ""
        if reference is None
        else f'<p class="reference" dir="auto"><b dir="ltr">reference</b> {escape(reference)}</p>'
    )
    body = f"""<div class="summary">
<p class="output" dir="auto">{output}</p>
{compared}
{_bar(what, copies) if shown else ""}
{details}
</div>
<h2>What was kept</h2>
<p class="legend">Underlined: the tokens that lead one of the {len(slots)} kept vectors, all that {escape(reader)} saw.
Shaded: how much of what is chosen above came from them{how if copies else ""}. The strip shows where they stand.</p>
{strip(text, spans, slots, style)}
<p class="document" dir="auto">{marked_text(text, spans, slots, smallest_weight, style)}</p>
{_table(choices[1:], copies, text, spans, slots)}
{vectors(text, spans, slots)}"""
    rules = "".join(_rule(number, shades) for number, shades in shaded.items())
    return frame(title, facts, body, STYLE + rules)


def _bar(what: str, copies: bool) -> str:
    """A line on how to use the page, and the button of the whole text, which is chosen at first."""
    lines = " Underlined: copied." if copies else ""
    return f"""<div class="bar"><span>Choose a word, or walk with the arrow keys.{lines}</span>
<label class="token whole"><input type="radio" name="token" id="o0" checked>whole {escape(what)}</label></div>"""


def _whole(tokens: Sequence[OutputToken]) -> OutputToken:
    """The whole text as one token: the mean attention, and the pointing weighted by how much was copied."""

    def mean(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
        total = sum(weights)
        return [sum(x * w for x, w in zip(column, weights, strict=True)) / total for column in zip(*rows, strict=True)]

    equal = [1.0] * len(tokens)
    copying, copied = mean([(token.copying, token.copied) for token in tokens], equal)
    pointing = [token.pointing for token in tokens if token.pointing is not None]
    return OutputToken(
        "",
        attention=mean([token.attention for token in tokens], equal),
        pointing=mean(pointing, [token.copied for token in tokens] if copied else equal) if pointing else None,
        copying=copying,
        copied=copied,
    )


def _shades(shares: Sequence[float], slots: Sequence[Slot], first: Mapping[int, int]) -> dict[int, float]:
    """{token of the document: its weight in a mixture of slots}, 1 for the largest. Small ones are left out.

    What tokens that are drawn as one have together counts for the first of them.
    """
    found: dict[int, float] = defaultdict(float)
    for share, slot in zip(shares, slots, strict=True):
        for place, weight in slot.tokens:
            found[first.get(place, place)] += share * weight
    ranked = sorted(found.items(), key=lambda pair: -pair[1])[:MOST_SHADED]
    return {place: amount / ranked[0][1] for place, amount in ranked if amount >= 0.02 * ranked[0][1] > 0}


def _rule(number: int, shades: dict[int, float]) -> str:
    """CSS for what a chosen token shades and shows. A token under the mouse comes before the chosen one."""
    chosen = f"body:has(#o{number}:checked):not(:has(.token:hover)),body:has(.token:hover>#o{number})"
    shading = "".join(f"--t{place}:{shade:.2f};" for place, shade in shades.items())
    return f"{chosen}{{--d{number}:block;{shading}}}\n"


def _token(number: int, token: OutputToken) -> str:
    """A radio button that looks like the token's text."""
    name = token.text.lstrip()
    space = token.text[: len(token.text) - len(name)]
    button = f'<input type="radio" name="token" id="o{number}">'
    return f'{escape(space)}<label class="token" style="--c:{token.copied:.2f}">{button}{escape(name)}</label>'


def _detail(
    number: int, token: OutputToken, what: str, copies: bool, text: str, spans: Sequence[Span], slots: Sequence[Slot]
) -> str:
    """The details of a chosen token: how much was copied, and the sources with their shares."""
    name = escape(_name(token)) if number else f"The whole {escape(what)}"
    how = f"{_percent(token.copied)} copied, the gate {_percent(token.copying)} open to copying" if copies else ""
    sources = "".join(
        f'<div class="source" style="opacity:{strength:.2f}"><h3>{head}</h3>'
        + "".join(
            f'<span dir="auto">{source}</span><span class="track"><span class="fill" '
            f'style="display:block;width:{100 * share:.1f}%"></span></span><span class="p">{_percent(share)}</span>'
            for source, share in _sources(shares, text, spans, slots, most=5)
        )
        + "</div>"
        for head, shares, strength in _heads(token)
    )
    return (
        f'<div class="detail" style="display:var(--d{number},none)"><p><b dir="auto">{name}</b> {how}</p>'
        f'<div class="sources">{sources}</div></div>'
    )


def _table(choices, copies: bool, text: str, spans: Sequence[Span], slots: Sequence[Slot]) -> str:
    """All tokens of the summary as a table, for readers without a mouse and for print."""
    if not choices:
        return ""
    heads = "".join(f"<th>{head}</th>" for head, *_ in _heads(choices[0][1]))
    rows = "".join(
        f'<tr><td dir="auto"><label for="o{number}">{escape(_name(token))}</label></td>'
        + (f'<td class="p">{_percent(token.copied)}</td>' if copies else "")
        + "".join(
            f'<td style="opacity:{strength:.2f}">'
            + ", ".join(
                f'<span dir="auto">{source}</span>\u00a0<small>{_percent(share)}</small>'
                for source, share in _sources(shares, text, spans, slots, most=3)
            )
            + "</td>"
            for _, shares, strength in _heads(token)
        )
        + "</tr>\n"
        for number, token in choices
    )
    return f"""<h2>Token by token</h2>
<table class="tokens">
<tr><th>token</th>{'<th class="p">copied</th>' if copies else ""}{heads}</tr>
{rows}</table>"""


def _heads(token: OutputToken) -> list[tuple[str, Sequence[float], float]]:
    """(name, shares, opacity) of each kind of attention. Pointing fades if little was copied."""
    pointing = [] if token.pointing is None else [("points at", token.pointing, 0.4 + 0.6 * token.copied)]
    return [*pointing, ("attends to", token.attention, 1.0)]


def _sources(
    shares: Sequence[float], text: str, spans: Sequence[Span], slots: Sequence[Slot], most: int
) -> list[tuple[str, float]]:
    """(leading word, share) of the largest shares. Slots led by the same word are added up, and counted."""
    found: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for share, slot in zip(shares, slots, strict=True):
        start, end = spans[slot.position]
        found[text[start:end].lower()][slot.position] += share
    ranked = sorted(found.values(), key=lambda places: -sum(places.values()))[:most]
    sources = []
    for places in ranked:
        name = linked_word(text, spans, max(places, key=lambda place: places[place]))
        times = f"\u00a0<small>&times;{len(places)}</small>" if len(places) > 1 else ""
        sources.append((name + times, sum(places.values())))
    return [(name, share) for name, share in sources if share >= 0.005]


def _name(token: OutputToken) -> str:
    """The text of a token, or a sign for spaces alone and for a part of a character."""
    return token.text.strip() or ("␣" if token.text else "…")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"
