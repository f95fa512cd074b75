"""What a model made of a document, as arguments of the pages: vectors kept, answer, attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.integrations.reading import read_texts
from shtopk.models.answers import answers
from shtopk.models.inputs import taken_by
from shtopk.models.prediction import classify
from shtopk.models.windows import positions_of, reading_of
from shtopk.pooling import TopKPooling
from shtopk.show.document import Slot
from shtopk.show.summary import OutputToken


@torch.inference_mode()
def describe(model, tokenizer, text: str | tuple[str, str], max_tokens: int | None = None) -> dict[str, Any]:
    """The arguments of `shtopk.show.page` for a document, but for title and label.

    Args:
        model: see `shtopk.show.answer.answer_and_page`.
        max_tokens: tokens of the document that the model reads. None: all; a model that is not of `shtopk.models`
            reads as many as it has positions.

    Raises:
        ValueError: a model that does not answer with logits for a document.
    """
    model.eval()
    # The models of shtopk.models state no positions of their own: they read in windows.
    limits = [limit for limit in (max_tokens, positions_of(model.config)) if limit is not None]
    max_tokens = min(limits, default=None)
    inputs, spans, cut = _encode(model, tokenizer, text, max_tokens)
    out, assignment = classify(model, inputs)
    logits = getattr(out, "logits", None)
    if logits is None or logits.dim() != 2:
        raise ValueError(f"expected a model that classifies documents, got {type(model).__name__}")
    (answer,) = answers(logits, model.config)
    slots = None if assignment is None else slots_of(assignment, getattr(out, "pooled_scores", None))
    poolings = [module for module in model.modules() if isinstance(module, TopKPooling)]
    return {
        "text": text if isinstance(text, str) else "\n".join(text),
        "spans": spans,
        "slots": slots,
        "values": answer.values,
        "problem_type": answer.problem_type,
        "thresholds": answer.thresholds,
        "facts": _facts(poolings[-1] if poolings else None, slots, spans, cut),
    }


@torch.inference_mode()
def describe_summary(model, tokenizer, text: str | tuple[str, str], max_tokens: int | None = None) -> dict[str, Any]:
    """The arguments of `shtopk.show.summary_page` for a document, but for title and reference.

    The summary is generated as the model's generation settings say. Then it is decoded once more in one pass, which
    gives the attention of every token. max_tokens: see `describe`.
    """
    model.eval()
    inputs, spans, cut = _encode(model, tokenizer, text, max_tokens)
    generated = model.generate(**inputs)[:1]  # [1, T + 1] with the start token
    encoded = model.get_encoder()(**inputs)
    slots = slots_of(encoded.assignment, encoded.scores)
    tokens = _output_tokens(model, tokenizer, encoded, generated)
    generation = f"{len(tokens)} tokens generated"
    if model.config.copy_head and tokens:
        generation += f", {100 * sum(token.copied for token in tokens) / len(tokens):.0f} % copied"
    return {
        "text": text if isinstance(text, str) else "\n".join(text),
        "spans": spans,
        "slots": slots,
        "tokens": tokens,
        "facts": [*_facts(model.pooling, slots, spans, cut), generation],
    }


def _output_tokens(model, tokenizer, encoded, generated: Tensor) -> list[OutputToken]:
    """The tokens of a summary [1, T + 1] that a reader sees, each with its attention over the filled slots."""
    ids = generated[0, 1:]  # [T]
    unseen = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    seen = [step for step, token in enumerate(ids.tolist()) if token not in unseen]
    if not seen:
        return []
    with eager_attention(model.backbone.get_decoder()):
        out = model(
            encoder_outputs=encoded,
            decoder_input_ids=generated[:, :-1],
            output_attentions=True,
            output_hidden_states=True,
            use_cache=False,
        )
    if not out.cross_attentions:
        raise ValueError(f"a decoder of type {model.config.backbone.model_type} does not tell what it attends to")
    filled = encoded.attention_mask[0] != 0

    def of_seen(shares: Tensor) -> list[list[float]]:
        """The shares [T, k] of the filled slots, scaled to sum to 1."""
        shares = shares[seen][:, filled].cpu().double()
        return (shares / shares.sum(-1, keepdim=True)).tolist()

    attention = torch.stack([layer[0].float().mean(0) for layer in out.cross_attentions]).mean(0)  # [T, k]
    rows: list[dict[str, Any]] = [{"attention": shares} for shares in of_seen(attention)]
    if model.config.copy_head:
        pointing, gate = model.copy_head.point(out.decoder_hidden_states[-1], encoded)
        same = encoded.input_ids[0] == ids[:, None]  # [T, L]
        from_document = (model.copy_head.through_slots(pointing, encoded)[0] * same).sum(-1)  # [T]
        copying = 1 - gate[0, :, 0]
        probability = out.logits[0].gather(-1, ids[:, None])[:, 0].exp()  # logits are log-probabilities
        copied = (copying * from_document / probability).clamp(0, 1)
        for row, shares, step in zip(rows, of_seen(pointing[0]), seen, strict=True):
            row |= {"pointing": shares, "copying": copying[step].item(), "copied": copied[step].item()}
    texts = pieces(tokenizer, ids[seen].tolist())
    return [OutputToken(piece, **row) for piece, row in zip(texts, rows, strict=True)]


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token; joined they make the whole text.

    A character of several tokens belongs to the last one.
    """
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    ends = [0]
    for count in range(1, len(ids)):
        start = tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False)
        common = next((i for i, (a, b) in enumerate(zip(start, text, strict=False)) if a != b), len(start))
        ends.append(min(max(common, ends[-1]), len(text)))
    return [text[start:end] for start, end in zip(ends, [*ends[1:], len(text)], strict=True)]


@contextmanager
def eager_attention(model) -> Iterator[None]:
    """Inside this context attention is computed by the only implementation that returns weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def slots_of(assignment: Assignment, scores: Tensor | None, smallest_weight: float = 1e-3) -> list[Slot]:
    """The filled slots of a batch's first document, in order, each with its tokens above the smallest weight.

    Args:
        scores: [B, k] of the slots; None if they are not known, as between an encoder's layers.
    """
    first = assignment.map(lambda x: x[0])
    return [
        Slot(
            int(first.positions[slot]),
            first.tokens_of(slot, smallest_weight),
            None if scores is None else float(scores[0, slot]),
        )
        for slot in first.mask.nonzero().flatten().tolist()
    ]


def _encode(
    model, tokenizer, text: str | tuple[str, str], max_tokens: int | None
) -> tuple[dict[str, Tensor], list[tuple[int, int]], bool]:
    """(the model's inputs [1, L] by name, the characters that each token stands for, whether there are more)."""
    first, *second = (text,) if isinstance(text, str) else text
    encoded: dict[str, Any] = read_texts(
        tokenizer, [first], second or None, reading=reading_of(model), max_tokens=max_tokens, spans=True,
        return_attention_mask=True,
    )  # fmt: skip
    (spans,), (cut,) = encoded.pop("spans"), encoded.pop("cut")
    del encoded["length"]
    inputs = {name: torch.tensor(rows, device=model.device) for name, rows in taken_by(model, encoded).items()}
    return inputs, spans, cut


def _facts(
    pooling: TopKPooling | None, slots: Sequence[Slot] | None, spans: Sequence[tuple[int, int]], cut: bool
) -> list[str]:
    """Remarks on how much was read and kept, and how. cut: the document has more tokens."""
    read = [f"the first {len(spans):,} tokens read"] if cut else []
    if pooling is None or slots is None:
        return read or [f"{len(spans):,} tokens read"]
    return [
        *read,
        f"{len(slots)} of {len(spans):,} tokens kept",
        str(pooling.options.eval_operator).replace("_", " "),
        f"temperature {pooling.options.temperature:g}",
    ]
