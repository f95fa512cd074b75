"""A document with its kept tokens marked where they stand, and the vectors that they lead."""

from __future__ import annotations

from collections import defaultdict
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


def drawn_as_one(spans: Sequence[Span], slots: Sequence[Slot], smallest_weight: float) -> list[list[int]]:
    """Tokens that lead a slot or have the smallest weight in one, in the order of the text.

    Those that share characters, as the bytes of an emoji do, are together. Tokens without text are left out.
    """
    tokens = {token for slot in slots for token, weight in slot.tokens if weight >= smallest_weight}
    tokens |= {slot.position for slot in slots}
    groups: list[list[int]] = []
    done = 0
    for token in sorted(filter(lambda token: has_text(spans[token]), tokens), key=lambda token: (spans[token], token)):
        start, end = spans[token]
        if start < done:
            groups[-1].append(token)
        else:
            groups.append([token])
        done = max(done, end)
    return groups


def marked_text(
    text: str,
    spans: Sequence[Span],
    slots: Sequence[Slot],
    smallest_weight: float,
    style: Callable[[int], str] = lambda token: "",
) -> str:
    """The text with leading tokens in <mark>, and others above the smallest weight in <span>.

    Tokens that share characters are drawn as one: marked if any of them leads, and shaded by the sum of their weights
    in the slot where it is largest. style(token) is CSS for each, asked for the first of them.
    """
    weights: dict[int, dict[int, float]] = defaultdict(dict)  # token -> {number of a slot: weight}
    for number, slot in enumerate(slots, 1):
        for token, weight in slot.tokens:
            if weight >= smallest_weight:
                weights[token][number] = weight
    leads = {slot.position: number for number, slot in enumerate(slots, 1)}
    body, done = [], 0
    for group in drawn_as_one(spans, slots, smallest_weight):
        start, end = spans[group[0]][0], max(spans[token][1] for token in group)
        leaders = [token for token in group if token in leads]
        weight, number = _together([weights[token] for token in group]) or (0.0, leads[group[0]])
        score = slots[number - 1].score
        hover = f"token{'s' * (len(group) > 1)} {'+'.join(map(str, group))}, slot {number}, weight {weight:.3f}"
        hover += "" if score is None else f", score {score:.2f}"
        tag, place = ("mark", f' id="t{leaders[0]}"') if leaders else ("span", "")
        look = f"--w:{weight:.2f}{style(group[0])}"
        others = "".join(f'<a id="t{token}"></a>' for token in leaders[1:])
        body += [
            escape(text[done:start]),
            f'<{tag}{place} style="{look}" title="{hover}">{escape(text[start:end])}{others}</{tag}>',
        ]
        done = end
    return "".join([*body, escape(text[done:])])


def _together(weights: Sequence[dict[int, float]]) -> tuple[float, int] | None:
    """(weight, slot) where tokens with these weights by slot have most together; None if they have none."""
    total: dict[int, float] = defaultdict(float)
    for of_token in weights:
        for number, weight in of_token.items():
            total[number] += weight
    return max(((weight, number) for number, weight in total.items()), default=None)


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
        f'<span dir="auto">{word(text, spans[token])}</span> <small>{share:.2f}</small>'
        for token, share in ranked[:most]
        if token != slot.position and share >= 0.005
    ]
    lead = linked_word(text, spans, slot.position)
    return (
        f'<tr><td class="n">{number}</td><td dir="auto">{lead}</td>'
        f'<td class="n">{weight:.2f}</td><td>{", ".join(others)}</td></tr>'
    )
