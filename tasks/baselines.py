"""Summaries that need no model: the beginning of the document, or the summary of the most similar training document.

Their figures belong beside those of every summarizer.

>>> [lead("One sentence. And another.") for lead in BASELINES.values()]
['One sentence.', 'One sentence. And another.', 'One sentence. And another.']
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise

MEGABYTES = 80  # of distances between documents and training documents, held at a time

# From the first line, which names what is documented, to the first line that ends with a colon.
_SIGNATURE = re.compile(r"\s*(?:async\s+)?(?:def|class)\s+([\w.]+)(?:.*\n)*?.*:[^\S\n]*(?:\n|\Z)")


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, or an empty text. Blank lines end a sentence, line breaks do not."""
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    return next(sentences(normalise(paragraph)), "")


def first_words(text: str, n: int) -> str:
    """The first n >= 1 words, or all if there are fewer. Whitespace separates words; one space joins them."""
    if n < 1:
        raise ValueError(f"expected n >= 1 words, got {n}")
    return " ".join(text.split(maxsplit=n)[:n])


def docstring_body(text: str) -> str:
    r"""The text after a signature, whose last line ends with a colon. A text without a signature is returned whole.

    Example:
        >>> docstring_body("def mean(x,\n         y):\nAverage of two.")
        'Average of two.'
    """
    signature = _SIGNATURE.match(text)
    return text[signature.end() :] if signature else text


def name_words(name: str) -> str:
    """A name as words: it is split at underscores, dots and camel case.

    Example:
        >>> name_words("parse_HTTPResponse")
        'parse HTTP Response'
    """
    return " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[._]+", " ", name).split())


def name_and_first_words(text: str, n: int = 8) -> str:
    """The words of the documented name, then the first n of the body. Without a signature, the first n of the text."""
    signature = _SIGNATURE.match(text)
    name = name_words(signature[1]) if signature else ""
    return f"{name} {first_words(docstring_body(text), n)}".strip()


def nearest_neighbour(train_texts: Sequence[str], train_summaries: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Answer every text with the summary of its nearest training text, by the cosine of their TF-IDF vectors.

    A figure close to a model's says that training and test share documents, or that the model only remembers. Among
    equally near texts the first one counts, and so it does for a text that shares no word with any training text.

    Raises:
        ValueError: lists of unequal length, or no training text with a word of two letters or digits.

    Example:
        >>> nearest_neighbour(["the red fox", "a blue whale"], ["fox", "whale"], ["whales, or one whale"])
        ['whale']
    """
    counts = len(train_texts), len(train_summaries)
    if counts[0] != counts[1] or not counts[0]:
        raise ValueError(f"expected as many train_texts as train_summaries, got {counts[0]} and {counts[1]}")
    if not len(texts):
        return []
    from sklearn import config_context  # late: it takes long to import
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import pairwise_distances_argmin

    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    train = vectorizer.fit_transform(train_texts)
    with config_context(working_memory=MEGABYTES):
        nearest = pairwise_distances_argmin(vectorizer.transform(texts), train, metric="cosine")
    summaries = list(train_summaries)  # a column of a data set would read from disk for every index
    return [summaries[i] for i in nearest]


BASELINES: dict[str, Callable[[str], str]] = {
    "first_sentence": first_sentence,
    "first_16_words": partial(first_words, n=16),
    "first_100_words": partial(first_words, n=100),
}
"""Name -> document text to summary."""

DOCSTRING_BASELINES: dict[str, Callable[[str], str]] = {
    "first_sentence": lambda text: first_sentence(docstring_body(text)),
    "first_16_words": lambda text: first_words(docstring_body(text), 16),
    "name_and_first_8_words": name_and_first_words,
}
"""Likewise for documents that start with a signature; all but the last skip it."""
