"""From a text, perhaps with a prefix or a second text, to the tokens that a model reads, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """How a model reads documents.

    Attributes:
        prefix: stands before each.
        window: tokens that it sees at once; None: all.
        segments: whether it tells the two texts of a pair apart by token types; None: as the tokenizer has it.
    """

    prefix: str = ""
    window: int | None = None
    segments: bool | None = None


WHOLE = Reading()


def read_texts(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    reading: Reading = WHOLE,
    max_tokens: int | None = None,
    spans: bool = False,
    **options: Any,
) -> dict[str, list[Any]]:
    """Turn texts into tokens.

    Of a pair that has more than max_tokens, the longer text is cut first: a question of at most half of them stays
    whole, and the document is cut.

    A text that is longer than a window is read in several. A prefix stands in front of every window, and so does the
    first text of a pair, as long as that leaves at least half of the window to the second; a longer one is read once,
    before the second. So the tokens of a row may hold a prefix several times, in places where windows begin: those
    that n tokens are cut into, ceil(n / window) of nearly equal size.

    Args:
        tokenizer: of transformers.
        texts: N texts.
        pairs: N second texts; None: there are none.
        reading: how the model reads.
        max_tokens: cut texts to so many tokens, special ones and one prefix included; None: read them in full.
        spans: also give "spans" and "cut".
        options: for the tokenizer.

    Returns:
        "input_ids", and what else the tokenizer gives, each a list for every text. "length": how many tokens each
        text has without repetition. If asked for, "spans": for each token its first character and its last + 1; those
        of a second text count from the end of the first, with a character between; (0, 0) for special tokens, the
        prefix and what is repeated. And "cut": whether the text has more tokens.

    Raises:
        ValueError: max_tokens leaves no room, a prefix takes more than half of a window, or the tokenizer is too slow
            to say where its tokens stand.

    Example:
        >>> read_texts(tokenizer, ["Who?"], ["It was Ada."])["token_type_ids"]  # doctest: +SKIP
        [[0, 0, 0, 0, 1, 1, 1, 1, 1]]
    """
    prefix, window, segments = reading
    if max_tokens is not None and max_tokens <= (least := least_tokens(tokenizer, pairs is not None, prefix)):
        raise ValueError(f"expected max_tokens > {least}, the special tokens{' and the prefix' * bool(prefix)}, "
                         f"got {max_tokens}")  # fmt: skip
    if pairs is not None:
        options |= {"text_pair": list(pairs), "return_token_type_ids": segments}
    encoded = tokenizer(
        [prefix + text for text in texts],
        truncation=max_tokens is not None,
        max_length=max_tokens,
        verbose=False,  # no warning that a document is longer than the encoder has positions
        **options,
    )
    found = {name: list(rows) for name, rows in encoded.items()}
    found["length"] = [len(ids) for ids in found["input_ids"]]
    located = spans or ((prefix or pairs is not None) and window and max(found["length"], default=0) > window)
    if not located:
        return found
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(_too_slow(tokenizer))
    for row, encoding in enumerate(encoded.encodings):
        order: Sequence[int] = range(len(encoding.ids))
        if window and len(encoding.ids) > window and (prefix or pairs is not None):
            order = _in_windows(encoding, len(prefix), pairs is not None, window)
            for name in encoded:
                found[name][row] = [found[name][row][i] for i in order]
        if spans:
            places = _spans(encoding, len(prefix), len(texts[row]) + 1)
            first = {i: place for place, i in reversed(list(enumerate(order)))}
            found.setdefault("spans", []).append(
                [places[i] if first[i] == at else (0, 0) for at, i in enumerate(order)]
            )
            found.setdefault("cut", []).append(bool(encoding.overflowing))
    return found


class Prompts(NamedTuple):
    """Prompts in tokens.

    Attributes:
        ids: the token numbers of each.
        spans: for each token its first character and its last + 1; (0, 0) for those that stand before a text.
        cut: whether a prompt has more tokens, before those that are read.
    """

    ids: list[list[int]]
    spans: list[list[tuple[int, int]]]
    cut: list[bool]


def read_prompts(tokenizer: Any, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
    """Turn prompts into tokens, after which a completion's can follow.

    A tokenizer may put special tokens before a text, such as <s>; what it puts after one is left out.

    Args:
        tokenizer: of transformers.
        texts: N prompts.
        max_tokens: keep at most so many tokens of a prompt, those before it included. Its end is kept, and its
            beginning cut off. None: prompts are read in full.

    Returns:
        The token numbers of each.

    Raises:
        ValueError: max_tokens leaves no room for a prompt.

    Example:
        >>> read_prompts(tokenizer, ["Who was it? Answer:"], max_tokens=3)  # doctest: +SKIP
        [[1, 673, 29901]]
    """
    start, most = _room(tokenizer, max_tokens)
    return [start + (ids[-most:] if most else ids) for ids in _bare(tokenizer, texts)]


def locate_prompts(tokenizer: Any, texts: Sequence[str], max_tokens: int | None = None) -> Prompts:
    """Turn prompts into the same tokens as `read_prompts`, and say where they stand in the texts.

    Raises:
        ValueError: max_tokens leaves no room for a prompt, or the tokenizer is too slow to say where its tokens stand.
    """
    start, most = _room(tokenizer, max_tokens)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(_too_slow(tokenizer))
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rows = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    found = [(start + ids[-(most or len(ids)) :], [(0, 0)] * len(start) + spans[-(most or len(ids)) :],
              most is not None and len(ids) > most) for ids, spans in rows]  # fmt: skip
    return Prompts(*(list(part) for part in zip(*found, strict=True)))


def _room(tokenizer: Any, max_tokens: int | None) -> tuple[list[int], int | None]:
    """The special tokens before a prompt, and how many of its own there is room for; None: any number."""
    start = tokens_before(tokenizer)
    if max_tokens is not None and max_tokens <= len(start):
        raise ValueError(f"expected max_tokens > {len(start)}, the tokens before a prompt, got {max_tokens}")
    return start, None if max_tokens is None else max_tokens - len(start)


def _too_slow(tokenizer: Any) -> str:
    return f"expected a fast tokenizer, which says where its tokens stand, got {type(tokenizer).__name__}"


def read_completions(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Turn completions into tokens. Each ends with the token that ends a text, unless it is cut to max_tokens.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("expected a tokenizer with a token that ends a text, got none; set its eos_token and save it")
    return [(ids if ids[-1:] == [end] else [*ids, end])[:max_tokens] for ids in _bare(tokenizer, texts)]


def _bare(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def tokens_before(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    return encoded["input_ids"][: len(list(takewhile(bool, encoded["special_tokens_mask"])))]


def least_tokens(tokenizer: Any, pair: bool = False, prefix: str = "") -> int:
    """How many tokens empty texts have: the special ones and those of the prefix."""
    if not prefix:
        return tokenizer.num_special_tokens_to_add(pair)
    return len(tokenizer(prefix, *[""] * pair)["input_ids"])


def _spans(encoding: Any, prefix: int, shift: int) -> list[tuple[int, int]]:
    """The characters of each token, without the prefix."""
    found = []
    for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        if sequence == 1:
            found.append((start + shift, end + shift))
        else:
            found.append((max(0, start - prefix), end - prefix) if sequence == 0 and end > prefix else (0, 0))
    return found


def _in_windows(encoding: Any, prefix: int, pair: bool, window: int) -> Sequence[int]:
    """The tokens of a long text, by their places, with those that stand in front of every window repeated."""
    places = range(len(encoding.ids))
    body = [i for i in places if encoding.sequence_ids[i] == 1] if pair else [
        i for i in places if encoding.sequence_ids[i] == 0 and encoding.offsets[i][1] > prefix]  # fmt: skip
    if not body:
        return places
    head, tail = places[: body[0]], places[body[-1] + 1 :]
    repeated = len(head) + len(tail)
    if repeated > window // 2:
        if pair:
            return places
        raise ValueError(f"expected a prefix that takes at most half of a window of {window} tokens, got {repeated} "
                         "tokens; shorten the prefix or raise window")  # fmt: skip
    windows = -(-len(body) // (window - repeated))
    size = -(-len(body) // windows)
    parts = (body[start : start + size] for start in range(0, len(body), size))
    return [i for part in parts for i in (*head, *part, *tail)]
