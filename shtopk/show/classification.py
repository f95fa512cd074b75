"""The page of a classified document: its kept tokens, their weights and the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from shtopk.show.document import Slot, Span, marked_text, strip, vectors
from shtopk.show.frame import frame

MOST_CLASSES = 12


def page(
    text: str,
    spans: Sequence[Span],
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
        smallest_weight: tokens below it are not shaded, which keeps the page of a long document small.

    Example:
        >>> "<mark" in page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 0.9), (0, 0.1)])], [("x", 1.0)], title="t")
        True
    """
    body = f"""<div class="classes">{_classes(probabilities, label)}</div>
<h2>What was kept</h2>
<p class="legend">Underlined: the token that leads a slot. Shaded: the share that a token has in its slot. The strip
shows where in the document the kept tokens stand.</p>
{strip(text, spans, slots)}
<p class="document">{marked_text(text, spans, slots, smallest_weight)}</p>
{vectors(text, spans, slots)}"""
    return frame(title, facts, body)


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
