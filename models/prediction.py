"""A model's answers to any number of texts, as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from shtopk.assignment import Assignment
from shtopk.pooling import poolings

from .answers import CLASSES, LABELS, answers
from .checkpoint import most_tokens

GROWTH = 4  # of a block over the one before
MOST_CHARACTERS = 2**21  # of the texts that are read ahead, but for the last one
MOST_TOKENS = 2**16  # of the texts of a batch, padding included, unless one alone has more


class KeptToken(NamedTuple):
    """The leading token of a filled slot: its text (its name, where it has none in the document: [CLS]), its first and
    last + 1 character in the document, and its share in the slot, in [0, 1].
    """

    token: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Prediction:
    """What a model answers to one text. Fields that are not of its kind are None.

    Attributes:
        label: the class by its name, of a classifier whose texts have one each.
        probability: of that class, in [0, 1].
        probabilities: of every class or label by its name.
        labels: the labels that hold, the likeliest first, of a classifier whose texts have any number of them.
        value: the number, of regression; of several outputs {name: number}.
        summary: the text, of a summarizer.
        kept: the leading tokens of the filled slots in the order of the slots, where asked for.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    labels: list[str] | None = None
    value: float | dict[str, float] | None = None
    summary: str | None = None
    kept: list[KeptToken] | None = None

    @property
    def prediction(self) -> str | list[str] | float | dict[str, float]:
        """The one of label, labels, value and summary that the model gives."""
        given: Any = (one for one in (self.label, self.labels, self.value, self.summary) if one is not None)
        return next(given)


def predict(
    model: Any,
    tokenizer: Any,
    texts: Iterable[str | None],
    *,
    batch_size: int = 16,
    block: int = 1024,
    max_tokens: int | None = None,
    kept: bool = False,
) -> Iterator[Prediction]:
    """A model's answer to each text, in the order of the texts, as they are read.

    Texts are read ahead in blocks, and those of like length go through the model together, so that little of a batch
    is padding. The first block is one batch, and each has four times the texts of the one before, up to `block`: the
    first answers come soon. An answer does not depend on what other texts there are, but for the rounding of sums.

    Args:
        model: a classifier or a summarizer, as `load_checkpoint` gives it. It is put into eval mode.
        tokenizer: its fast tokenizer.
        texts: any number of texts, of any length, empty ones too. None among them is no text: it asks for the answers
            to those before it now, without waiting for more.
        batch_size: texts that go through the model together, >= 1; fewer where they are long.
        block: texts that are read ahead, >= 1; fewer where they are long. 1: none is, and batches are of one text.
        max_tokens: cut texts to so many tokens, special ones included; None: they are read in full, as far as the
            model has positions.
        kept: say which tokens were kept.

    Yields:
        A `Prediction` for each text.

    Raises:
        ValueError: at once: a number below 1, a max_tokens without room beside the special tokens, or kept of a model
            that pools nothing. On the way: what is no text.

    Example:
        >>> model, tokenizer = load_checkpoint("runs/bbc")  # doctest: +SKIP
        >>> [answer.label for answer in predict(model, tokenizer, ["The match ended 2-1."])]  # doctest: +SKIP
        ['sport']
    """
    for name, value in {"batch_size": batch_size, "block": block}.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens is not None and max_tokens <= special:
        raise ValueError(f"expected max_tokens > {special}, the tokenizer's special tokens, got {max_tokens}")
    if kept and not poolings(model):
        raise ValueError("expected a model that keeps some of its tokens, got one without a pooling; leave out kept")
    limit = min((one for one in (max_tokens, most_tokens(model)) if one is not None), default=None)
    return _predictions(Reader(model.eval(), tokenizer, limit, kept), texts, batch_size, block)


def _predictions(
    reader: Reader, texts: Iterable[str | None], batch_size: int, block: int
) -> Iterator[Prediction]:  # fmt: skip
    for waiting in _blocks(texts, min(batch_size, block), block):
        documents = [one for start in range(0, len(waiting), batch_size)
                     for one in reader.encode(waiting[start : start + batch_size])]  # fmt: skip
        found: dict[int, Prediction] = {}
        for rows in _batches([len(document.ids) for document in documents], batch_size, reader.alike):
            found.update(zip(rows, reader.answer([documents[row] for row in rows]), strict=True))
        yield from (found[row] for row in range(len(waiting)))


def _blocks(texts: Iterable[str | None], first: int, most: int) -> Iterator[list[str]]:
    """Texts in lists of `first`, then of four times as many each time, up to `most`; None among them ends a list."""
    size, waiting, characters = first, [], 0
    for text in texts:
        if isinstance(text, str):
            waiting.append(text)
            characters += len(text)
        elif text is not None:
            raise ValueError(f"expected texts, got {type(text).__name__}")
        if waiting and (text is None or len(waiting) >= size or characters >= MOST_CHARACTERS):
            yield waiting
            size, waiting, characters = min(GROWTH * size, most), [], 0
    if waiting:
        yield waiting


def _batches(lengths: Sequence[int], size: int, alike: bool) -> Iterator[list[int]]:
    """Row numbers by falling length, at most `size` together, and of at most `MOST_TOKENS`; alike: of one length."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch:
            longest = lengths[batch[0]]
            full = len(batch) == size or (len(batch) + 1) * longest > MOST_TOKENS
            if full or (alike and lengths[row] != longest):
                yield batch
                batch = []
        batch.append(row)
    if batch:
        yield batch


class Document(NamedTuple):
    """A text in tokens: what the model takes of it by name, and the characters of each token, where asked for."""

    text: str
    fields: dict[str, list[int]]
    spans: list[tuple[int, int]] | None

    @property
    def ids(self) -> list[int]:
        return self.fields["input_ids"]


class Reader:
    """A model that answers to batches of documents.

    Attributes:
        alike: documents of a batch have to be of one length for an answer not to depend on the others: the number of
            slots is a share of the padded length.
    """

    def __init__(self, model: Any, tokenizer: Any, limit: int | None, kept: bool):
        self.model, self.tokenizer, self.limit, self.kept = model, tokenizer, limit, kept
        self.summarizes = model.config.is_encoder_decoder and model.can_generate()
        self.alike = any(not isinstance(pooling.k, int) for pooling in poolings(model))
        self.pad = DataCollatorWithPadding(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[Document]:
        encoded = self.tokenizer(
            list(texts),
            truncation=self.limit is not None,
            max_length=self.limit,
            return_attention_mask=False,
            return_offsets_mapping=self.kept,
            verbose=False,  # no warning that a document is longer than the encoder has positions
        )
        spans = encoded.pop("offset_mapping", [None] * len(texts))
        if self.summarizes:
            encoded.pop("token_type_ids", None)  # which `generate` refuses
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        for row in rows:
            if not row["input_ids"]:  # a tokenizer without special tokens, and no text
                row |= {name: [0] for name in row} | {"input_ids": [self.tokenizer.pad_token_id]}
        return [Document(*parts) for parts in zip(texts, rows, spans, strict=True)]

    @torch.inference_mode()
    def answer(self, documents: Sequence[Document]) -> list[Prediction]:
        inputs = self.pad([document.fields for document in documents]).to(self.model.device)
        if self.summarizes:
            generated = self.model.generate(**inputs)
            summaries = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
            found: list[dict[str, Any]] = [{"summary": summary.strip()} for summary in summaries]
            assignment = self.model.get_encoder()(**inputs).assignment if self.kept else None
        else:
            out = self.model(**inputs)
            found = [_fields(answer) for answer in answers(out.logits, self.model.config)]
            assignment = out.assignment if self.kept else None
        if assignment is not None:
            for row, tokens in zip(found, self._kept(assignment, documents), strict=True):
                row["kept"] = tokens
        return [Prediction(**row) for row in found]

    def _kept(self, assignment: Assignment, documents: Sequence[Document]) -> Iterator[list[KeptToken]]:
        """Of each document the tokens that lead its filled slots."""
        longest = max(len(document.ids) for document in documents)
        left = self.tokenizer.padding_side == "left"
        rows = assignment.positions.tolist(), assignment.mask.tolist(), leading_weights(assignment).tolist()
        for document, positions, filled, weights in zip(documents, *rows, strict=True):
            padding = (longest - len(document.ids)) * left
            yield [self._token(document, position - padding, weight)
                   for position, there, weight in zip(positions, filled, weights, strict=True) if there]  # fmt: skip

    def _token(self, document: Document, position: int, weight: float) -> KeptToken:
        start, end = (document.spans or [])[position] if position < len(document.spans or []) else (0, 0)
        text = document.text[start:end] or self.tokenizer.convert_ids_to_tokens(document.ids[position])
        return KeptToken(text, start, end, weight)


def leading_weights(assignment: Assignment) -> Tensor:
    """[*, k] the weight of each slot's leading token in it; of an empty slot it means nothing."""
    at = assignment.positions
    if assignment.slots is None:
        return assignment.weights.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    return assignment.weights.gather(-1, at)


def _fields(answer: Any) -> dict[str, Any]:
    """Those of a `Prediction`, for what a classifier answers."""
    if answer.problem_type not in (CLASSES, LABELS):
        return {"value": answer.prediction}
    fields = {"probabilities": dict(answer.values)}
    if answer.problem_type == LABELS:
        return fields | {"labels": answer.prediction}
    return fields | {"label": answer.prediction, "probability": answer.chosen[0].value}
