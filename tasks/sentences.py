"""Sentences by a rule that needs no model and no download."""

import re
from collections.abc import Iterator


def sentences(text: str) -> Iterator[str]:
    r"""Yield the sentences of a text, headlines included.

    A sentence ends at the end of a line. It also ends at a full stop, question or exclamation mark, perhaps with a
    quotation mark behind it, before whitespace. Case plays no part, so text from an uncased tokenizer is split where
    the original is. The price is that "e.g. this" is split, too.

    Example:
        >>> list(sentences('He said "no." She left.\nThe end'))
        ['He said "no."', 'She left.', 'The end']
    """
    for line in text.splitlines():
        yield from filter(None, (part.strip() for part in re.split(r"(?<=[.!?])\s+|(?<=[.!?]['\"])\s+", line)))
