"""The page of a document with a class, labels or numbers: the answer, the kept tokens and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from shtopk.show.document import Slot, Span, marked_text, strip, vectors
from shtopk.show.frame import frame

Truth = str | float | Sequence[str] | Sequence[float]

MOST_CLASSES = 12
HOLDS = 0.5  # the probability from which on a label holds, as in shtopk.models.answers, which needs transformers


def page(
    text: str,
    spans: Sequence[Span],
    slots: Sequence[Slot] | None,
    values: Sequence[tuple[str, float]],
    *,
    title: str,
    problem_type: str = "single_label_classification",
    label: Truth | None = None,
    facts: Sequence[str] = (),
    smallest_weight: float = 0.01,
    thresholds: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """Draw the page of a document that was classified or given a number.

    Args:
        text: the document.
        spans: for each token its (start, end) characters in the text; start == end for a token without text ([CLS]).
        slots: what was kept. None: the model keeps every token, and the page does not mention it.
        values: in any order: (class or label, probability in [0, 1]), or in regression (output, number).
        title: headline of the page.
        problem_type: what the values are; see `shtopk.models.answers.problem_type`.
        label: the true answer, if it is known: the class, the names of the labels that hold (one or several), or the
            number (of several outputs one for each, in their order).
        facts: short remarks under the headline.
        smallest_weight: tokens below it are not shaded, which keeps the page of a long document small.
        thresholds: of several labels: {label: the probability in [0, 1] from which on it holds}; 0.5 for others.

    Returns:
        One HTML page, complete in itself and without scripts, with every text escaped.

    Raises:
        ValueError: in regression, a true answer that is not a number for each output.

    Example:
        >>> "<mark" in page("a b", [(0, 1), (2, 3)], [Slot(1, [(1, 0.9), (0, 0.1)])], [("x", 1.0)], title="t")
        True
    """
    if problem_type == "regression":
        answer = _numbers(values, label)
    elif problem_type == "multi_label_classification":
        answer = _labels(values, label, thresholds)
    else:
        answer = _classes(values, label)
    return frame(title, facts, answer + _document(text, spans, slots, smallest_weight))


def _document(text: str, spans: Sequence[Span], slots: Sequence[Slot] | None, smallest_weight: float) -> str:
    """The text, with what was kept of it marked if tokens were pooled."""
    if slots is None:
        return f'<h2>The document</h2>\n<p class="document" dir="auto">{escape(text)}</p>\n'
    return f"""<h2>What was kept</h2>
<p class="legend">Underlined: the token that leads a slot. Shaded: the share that a token has in its slot. The strip
shows where in the document the kept tokens stand.</p>
{strip(text, spans, slots)}
<p class="document" dir="auto">{marked_text(text, spans, slots, smallest_weight)}</p>
{vectors(text, spans, slots)}"""


def _classes(probabilities: Sequence[tuple[str, float]], truth: Truth | None) -> str:
    """A bar for each class, the likeliest first. A word stands beside the true one."""
    ranked = sorted(probabilities, key=lambda pair: -pair[1])
    return _bars([(name, p, not place, name == truth) for place, (name, p) in enumerate(ranked)], "true class")


def _labels(probabilities: Sequence[tuple[str, float]], truth: Truth | None, thresholds: Mapping[str, float]) -> str:
    """A bar for each label, the likeliest first. Those that hold stand out."""
    ranked = sorted(probabilities, key=lambda pair: -pair[1])
    true = {truth} if isinstance(truth, str) else set(truth) if isinstance(truth, Sequence) else set()
    rows = [(name, p, p >= thresholds.get(name, HOLDS), name in true) for name, p in ranked]
    count = sum(holds for _, _, holds, _ in rows)
    rule = f"of at least {100 * HOLDS:.0f}\u00a0%"
    if thresholds:
        rule = "that reaches the threshold beside its name"
    return f"""<p class="legend kind">Each label holds or not, whatever the others do: percentages need not sum to 100.
The answer is every label {rule}, here {count or "none"} of {len(ranked)}.</p>
{_bars(rows, "true label", thresholds)}"""


def _bars(
    rows: Sequence[tuple[str, float, bool, bool]], true: str, thresholds: Mapping[str, float] = MappingProxyType({})
) -> str:
    """Bars for rows (name, probability, whether it is part of the answer, whether it is true).

    Of rows that are neither, only the first few are drawn. Thresholds stand beside the names, if there are any.
    """

    def rule(name: str) -> str:
        return f' <span dir="ltr">(from {100 * thresholds.get(name, HOLDS):.1f} %)</span>' if thresholds else ""

    shown = [row for place, row in enumerate(rows) if place < MOST_CLASSES or row[2] or row[3]]
    bars = "".join(
        f'<div class="{"first" if chosen else "other"}" dir="auto">'
        f"{escape(name)}{rule(name)}{f' <b>{true}</b>' * is_true}</div>"
        f'<div class="track"><div class="fill" style="width:{100 * p:.1f}%"></div></div>'
        f'<div class="p">{100 * p:.1f} %</div>'
        for name, p, chosen, is_true in shown
    )
    return f'<div class="classes">{bars}</div>\n'


def _numbers(values: Sequence[tuple[str, float]], truth: Truth | None) -> str:
    """The number of each output, with the true one beside it."""
    true = [""] * len(values)
    if truth is not None:
        given = [truth] if isinstance(truth, str) or not isinstance(truth, Sequence) else truth
        if len(given) != len(values) or not all(isinstance(number, int | float) for number in given):
            raise ValueError(f"expected as true answer a number for each of {len(values)} outputs, got {truth!r}")
        true = [f"<b>true value {number:g}</b>" for number in given]
    names = ["" if len(values) == 1 and name == "LABEL_0" else name for name, _ in values]  # nobody's choice
    rows = "".join(
        f'<div dir="auto">{escape(name)}</div><div class="number">{number:g}</div><div>{beside}</div>'
        for name, (_, number), beside in zip(names, values, true, strict=True)
    )
    what = "a number, not a class" if len(values) == 1 else "numbers, not classes"
    return f'<p class="legend kind">The model answers with {what}.</p>\n<div class="numbers">{rows}</div>\n'
