"""A model's answer to a document: one line, and a page that shows what the answer is made of."""

from __future__ import annotations

from shtopk.integrations.decoders.families import FAMILIES
from shtopk.models import TopKPoolingSeq2SeqConfig
from shtopk.models.answers import Answer
from shtopk.models.language_model import completes
from shtopk.models.prediction import check_unicode
from shtopk.show.classification import Truth, page
from shtopk.show.completion import describe_completion
from shtopk.show.describe import describe, describe_summary
from shtopk.show.summary import summary_page


def show_document(model, tokenizer, text: str | tuple[str, str], **options) -> str:
    """Make an HTML page that shows a document, the tokens kept, and the model's answer.

    Args:
        model: see `answer_and_page`.
        tokenizer: the model's fast tokenizer.
        text: the document, or a pair of texts.
        options: the other arguments of `answer_and_page`.

    Returns:
        The page, complete in itself and without scripts.
    """
    return answer_and_page(model, tokenizer, text, **options)[1]


def answer_and_page(
    model,
    tokenizer,
    text: str | tuple[str, str],
    *,
    label: Truth | None = None,
    reference: str | None = None,
    title: str | None = None,
    max_tokens: int | None = None,
) -> tuple[str, str]:
    """Answer a document, and show which of its tokens the answer was made from: (answer in one line, HTML page).

    Args:
        model: a classifier of `shtopk.models`, one that `pool_encoder` or `pool_decoder` was called on, or one of
            transformers without any pooling, for one label, several labels or numbers (see `shtopk.show.page`). Or a
            summarizer of `shtopk.models`, or a causal language model of a kind that `pool_decoder` takes, best one
            that it was called on (see `shtopk.show.summary_page`). It is put into eval mode.
        tokenizer: the model's fast tokenizer.
        text: the document or the prompt, of any length, empty too; for a model of pairs, both texts.
        label: for a classifier, the true answer, if it is known: the class, the labels, the number.
        reference: for a summarizer or a language model, a text to compare with, if there is one.
        title: headline; None: the first line of the text.
        max_tokens: tokens of the document that the model reads, of a prompt the last ones. None: all; a model that is
            not of `shtopk.models` reads as many as it has positions.

    Raises:
        ValueError: a model that neither classifies nor writes, a `label` that is no number where the answer is
            one, or a text with a lone surrogate.

    Example:
        >>> from shtopk.integrations.encoder import pool_encoder
        >>> bert = AutoModelForSequenceClassification.from_pretrained("my-bert")  # doctest: +SKIP
        >>> answer, html = answer_and_page(pool_encoder(bert, {6: 64}), tokenizer, text)  # doctest: +SKIP
    """
    check_unicode(*((text,) if isinstance(text, str) else text))
    first_line = (text if isinstance(text, str) else text[0]).strip().split("\n")[0]
    if len(first_line) > 70:
        first_line = first_line[:70].rsplit(" ", 1)[0] + " …"
    title = title or first_line or "An empty document"
    if completes(model) and model.config.model_type in FAMILIES:
        if not isinstance(text, str):
            raise ValueError("expected one text as a prompt, got a pair")
        parts = describe_completion(model, tokenizer, text, max_tokens)
        answer = " ".join("".join(token.text for token in parts["tokens"]).split())
        return answer or "no completion", summary_page(**parts, reference=reference, title=title)
    if model.can_generate():
        if model.config.model_type != TopKPoolingSeq2SeqConfig.model_type:
            raise ValueError(
                "expected a classifier, a summarizer of shtopk.models, or a language model that pool_decoder takes, "
                f"got {type(model).__name__}"
            )
        parts = describe_summary(model, tokenizer, text, max_tokens)
        answer = " ".join("".join(token.text for token in parts["tokens"]).split())
        return answer or "no summary", summary_page(**parts, reference=reference, title=title)
    parts = describe(model, tokenizer, text, max_tokens)
    return str(Answer(parts["problem_type"], parts["values"], parts["thresholds"])), page(
        **parts, label=label, title=title
    )
