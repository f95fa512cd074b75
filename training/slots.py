"""How many vectors may be kept: slots are made whether tokens fill them or not, so far too many only take memory."""

from __future__ import annotations

from collections.abc import Iterator

from shtopk.training.arguments import Arguments

HARMLESS = 4096  # slots, even where documents are short


def check_slots(arguments: Arguments, longest: int) -> None:
    """Check that every number of vectors to keep is one that the documents can fill, or harmless.

    Args:
        arguments: with k, k_by_layer, window_k and k_range.
        longest: tokens of the longest document.

    Raises:
        ValueError: a number is above both.
    """
    for name, k in _numbers(arguments):
        check_count(name, k, longest)


def check_count(name: str, k: float, longest: int) -> None:
    """The same for one number, whose name is that of its field. A share is always one that documents can fill."""
    most = max(longest, HARMLESS)
    if k > most:
        raise ValueError(
            f"expected {name} of at most {most:,}, as the longest document has {longest:,} tokens; got {k:,}; "
            f"1.0 keeps all tokens"
        )


def _numbers(arguments: Arguments) -> Iterator[tuple[str, int]]:
    model, k_range = arguments.model, arguments.training.range_of_k
    if isinstance(k := model.share_or_count, int):
        yield "k", k
    for layer, k in (model.shares_or_counts or {}).items():
        if isinstance(k, int):
            yield f"k_by_layer, at layer {layer},", k
    if model.window_k is not None:
        yield "window_k", model.window_k
    if k_range is not None:
        yield "k_range", k_range[1]
