"""Summaries that need no model: the beginning of the document. They belong beside every summarizer's figures.

>>> [lead("One sentence. And another.") for lead in BASELINES.values()]
['One sentence.', 'One sentence. And another.', 'One sentence. And another.']
"""

import re
from collections.abc import Callable
from functools import partial

from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise

# From the first line, which names what is documented, to the first line that ends with a colon.
_SIGNATURE = re.compile(r"\s*(?:async\s+)?(?:def|class)\s+([\w.]+)(?:.*\n)*?.*:[^\S\n]*(?:\n|\Z)")


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, or an empty text. Line breaks end no sentence, blank lines do."""
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    return next(sentences(normalise(paragraph)), "")


def first_words(text: str, n: int) -> str:
    """The first n >= 1 words, as whitespace separates them, with one space between; fewer where there are no more."""
    if n < 1:
        raise ValueError(f"expected n >= 1 words, got {n}")
    return " ".join(text.split(maxsplit=n)[:n])


def docstring_body(text: str) -> str:
    """What follows the signature; the whole text where it does not start with one.

    Args:
        text: a signature, `def name(arguments):` or `class Name(Bases):` on one or more lines of which the last ends
            with the colon, then a line break and the body.

    Example:
        >>> docstring_body("def mean(x,\\n         y):\\nAverage of two.")
        'Average of two.'
    """
    signature = _SIGNATURE.match(text)
    return text[signature.end() :] if signature else text


def name_words(name: str) -> str:
    """A name as words, split at underscores, dots and camel case.

    Example:
        >>> name_words("parse_HTTPResponse")
        'parse HTTP Response'
    """
    return " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[._]+", " ", name).split())


def name_and_first_words(text: str, n: int = 8) -> str:
    """The words of the documented name, then the first n of the body; see `docstring_body` and `name_words`.

    Without a signature, the first n words of the text.
    """
    signature = _SIGNATURE.match(text)
    name = name_words(signature[1]) if signature else ""
    return f"{name} {first_words(docstring_body(text), n)}".strip()


def _of_body(baseline: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: baseline(docstring_body(text))


BASELINES: dict[str, Callable[[str], str]] = {
    "first_sentence": first_sentence,
    "first_16_words": partial(first_words, n=16),
    "first_100_words": partial(first_words, n=100),
}
"""Name -> document text to summary."""

DOCSTRING_BASELINES: dict[str, Callable[[str], str]] = {
    "first_sentence": _of_body(first_sentence),
    "first_16_words": _of_body(partial(first_words, n=16)),
    "name_and_first_8_words": name_and_first_words,
}
"""Likewise for documents that start with a signature; all but the last skip it."""
