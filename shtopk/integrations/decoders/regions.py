"""Which tokens of a prompt are pooled, and which are kept whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

IGNORED = -100  # of labels, as everywhere in transformers


def default_regions(real: Tensor, keep_last: int, prompt: Tensor | None = None) -> Tensor:
    """[B, n] 1 for the tokens of the prompt but its last ones, 0 for the others.

    Args:
        real: [B, n] bool, True for a token.
        keep_last: tokens at the end of each prompt that are kept.
        prompt: [B, n] bool, True for the tokens of the prompt; None: all of them.
    """
    prompt = real if prompt is None else real & prompt
    to_end = prompt.flip(-1).cumsum(-1).flip(-1)  # tokens of the prompt from here on: 1 at the last
    return (prompt & (to_end > keep_last)).long()


def prompt_of(labels: Tensor, real: Tensor) -> Tensor:
    """[B, n] bool, True for the tokens before the first label.

    Raises:
        ValueError: another shape, or labels from the first token on in every row.
    """
    check_labels(labels, real)
    told = (labels.to(real.device) != IGNORED) & real
    first = real.int().argmax(1, keepdim=True)
    if bool(told.any()) and bool(told.gather(1, first).all()):
        raise ValueError(
            "expected labels of -100 for the tokens of the prompt, got labels from the first token on, which leaves "
            "no prompt to pool"
        )
    return told.cumsum(-1) == 0


def given_regions(compress_mask: Tensor, real: Tensor, labels: Tensor | None = None) -> Tensor:
    """[B, n] from what a caller marks: nonzero for a token to pool, and different numbers for regions apart.

    Raises:
        ValueError: another shape, no numbers of regions, nothing or everything marked, or a label on a token that is
            pooled.
    """
    check_shape(compress_mask, real.shape)
    given = compress_mask.to(real.device).masked_fill(~real, 0)
    regions = given.long()
    if bool((odd := (regions != given) | (given < 0)).any()):
        raise ValueError(f"expected a compress_mask of 0 and numbers of regions, got {given[odd][0].item()}")
    marked = regions > 0
    if not bool(marked.any()):
        raise ValueError(
            "expected a compress_mask that marks tokens to pool, got none; leave it out to pool the prompt"
        )
    last = real.shape[1] - 1 - real.flip(-1).int().argmax(-1)
    if bool(marked.gather(1, last.unsqueeze(1)).any()):
        raise ValueError(
            "expected a compress_mask that leaves the last token of each row whole, from which the next one is "
            "predicted; set its last place to 0"
        )
    if labels is not None:
        check_labels(labels, real)
        if bool((marked[:, :-1] & (labels.to(real.device)[:, 1:] != IGNORED)).any()):
            raise ValueError("expected labels of -100 for tokens that are pooled and for those after them, got others")
    return regions.unique(return_inverse=True)[1]  # 0 is among them


def check_shape(compress_mask: Any, shape: Sequence[int]) -> None:
    """Refuse a compress_mask of another shape than the prompt's [B, n]."""
    if not isinstance(compress_mask, Tensor) or compress_mask.shape != tuple(shape):
        got = list(compress_mask.shape) if isinstance(compress_mask, Tensor) else type(compress_mask).__name__
        raise ValueError(f"expected a compress_mask [B, n] of {list(shape)} as the prompt, got {got}")


def check_labels(labels: Tensor, real: Tensor) -> None:
    """Refuse labels of another shape than the tokens'."""
    if labels.shape != real.shape:
        raise ValueError(f"expected labels [B, n] of {list(real.shape)} as the tokens, got {list(labels.shape)}")
