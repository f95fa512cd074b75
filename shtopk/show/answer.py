"""What a model answers to a document: one line, and a page that shows what the answer is made of."""

from __future__ import annotations

from shtopk.show.classification import page
from shtopk.show.describe import describe, describe_summary
from shtopk.show.summary import summary_page


def show_document(model, tokenizer, text: str, **options) -> str:
    """An HTML page with the document, the tokens kept and what the model makes of them; see `answer_and_page`."""
    return answer_and_page(model, tokenizer, text, **options)[1]


def answer_and_page(
    model,
    tokenizer,
    text: str,
    *,
    label: str | None = None,
    reference: str | None = None,
    title: str | None = None,
    max_tokens: int | None = None,
) -> tuple[str, str]:
    """(the model's answer in one line, an HTML page that shows which tokens of the document it was made from).

    Args:
        model: a classifier (see `shtopk.show.page`) or a summarizer (see `shtopk.show.summary_page`) of
            `shtopk.models`; it is put into eval mode.
        tokenizer: the model's fast tokenizer.
        text: the document, of any length, empty too.
        label: the document's true class, if known and the model a classifier.
        reference: a summary to compare with, if known and the model a summarizer.
        title: headline; by default the first line of the text.
        max_tokens: tokens of the document that the model reads; None: all.
    """
    first_line = text.strip().split("\n")[0]
    if len(first_line) > 70:
        first_line = first_line[:70].rsplit(" ", 1)[0] + " …"
    title = title or first_line or "An empty document"
    if model.can_generate():
        parts = describe_summary(model, tokenizer, text, max_tokens)
        answer = " ".join("".join(token.text for token in parts["tokens"]).split())
        return answer or "no summary", summary_page(**parts, reference=reference, title=title)
    parts = describe(model, tokenizer, text, max_tokens)
    name, probability = max(parts["probabilities"], key=lambda pair: pair[1])
    return f"{name} ({100 * probability:.1f} %)", page(**parts, label=label, title=title)
