"""A document with its kept tokens marked where they stand, and the vectors that they lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Span = tuple[int, int]

MOST_ROWS = 512  # slots listed in the table and the strip; more of them only make the page heavy


@dataclass(frozen=True)
class Slot:
    """A kept vector.

    Attributes:
        position: index of its heaviest token.
        tokens: (index, weight) of all its tokens.
        score: of the slot; None if it is not known.
    """

    position: int
    tokens: Sequence[tuple[int, float]]
    score: float | None = None


def has_text(span: Span) -> bool:
    return span[0] < span[1]


def word(text: str, span: Span, reach: int = 24) -> str:
    """A token's text. If it is a piece of a word, the rest of the word stands beside it in small."""
    start, end = span
    if not has_text(span):
        return "<small>special token</small>"
    before, after = start, end
    while start - before < reach and before > 0 and text[before - 1].isalnum() and text[start].isalnum():
        before -= 1
    while after - end < reach and after < len(text) and text[after].isalnum() and text[end - 1].isalnum():
        after += 1
    pieces = [f"<small>{escape(part)}</small>" if part else "" for part in (text[before:start], text[end:after])]
    return f"{pieces[0]}{escape(text[start:end])}{pieces[1]}"


def linked_word(text: str, spans: Sequence[Span], token: int) -> str:
    """A kept token's word, as a link to the token's place in the text."""
    name = word(text, spans[token])
    return f'<a href="#t{token}">{name}</a>' if has_text(spans[token]) else name


def marked_text(
    text: str,
    spans: Sequence[Span],
    slots: Sequence[Slot],
    smallest_weight: float,
    style: Callable[[int], str] = lambda token: "",
) -> str:
    """The text with leading tokens in <mark>, and others above the smallest weight in <span>. style(token) is CSS for
    each.
    """
    share: dict[int, tuple[float, int]] = {}  # token -> (largest weight, number of the slot)
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
        look = f"--w:{weight:.2f}{style(token)}"
        body += [
            escape(text[done:start]),
            f'<{tag}{place} style="{look}" title="{hover}">{escape(text[start:end])}</{tag}>',
        ]
        done = end
    return "".join([*body, escape(text[done:])])


def strip(
    text: str, spans: Sequence[Span], slots: Sequence[Slot], style: Callable[[int], str] = lambda token: ""
) -> str:
    """A bar that stands for the document, with a tick for each kept token. style(token) is CSS for each."""
    ticks = "".join(
        f'<a href="#t{slot.position}" '
        f'style="left:{100 * spans[slot.position][0] / len(text):.2f}%{style(slot.position)}"></a>'
        for slot in slots[:MOST_ROWS]
        if has_text(spans[slot.position])
    )
    return f'<div class="strip">{ticks}</div>'


def vectors(text: str, spans: Sequence[Span], slots: Sequence[Slot]) -> str:
    """A table of the slots: the leading token of each, and the others in it."""
    rows = "".join(_row(text, spans, number, slot) for number, slot in enumerate(slots[:MOST_ROWS], 1))
    rest = f'<p class="legend">The first {MOST_ROWS} are listed.</p>' if len(slots) > MOST_ROWS else ""
    return f"""<h2>The {len(slots)} vectors</h2>
<table>
<tr><th class="n">slot</th><th>leading token</th><th class="n">weight</th><th>others in it</th></tr>
{rows}
</table>
{rest}"""


def _row(text: str, spans: Sequence[Span], number: int, slot: Slot, most: int = 5) -> str:
    """The row of one slot: the leading token and the heaviest of the others."""
    ranked = sorted(slot.tokens, key=lambda pair: -pair[1])
    weight = next((share for token, share in ranked if token == slot.position), 0.0)
    others = [
        f"{word(text, spans[token])} <small>{share:.2f}</small>"
        for token, share in ranked[:most]
        if token != slot.position and share >= 0.005
    ]
    lead = linked_word(text, spans, slot.position)
    cells = f'<td class="n">{number}</td><td>{lead}</td><td class="n">{weight:.2f}</td><td>{", ".join(others)}</td>'
    return f"<tr>{cells}</tr>"
