"""A model's answers to any number of texts, as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from shtopk.assignment import Assignment
from shtopk.integrations.decoder import record_assignments
from shtopk.integrations.reading import least_tokens, locate_prompts, read_prompts, read_texts
from shtopk.pooling import poolings

from .answers import CLASSES, LABELS, answers
from .checkpoint import most_tokens
from .inputs import taken_by
from .language_model import completes
from .windows import reading_of

GROWTH = 4  # of a block over the one before
MOST_CHARACTERS = 2**21  # of the texts that are read ahead, but for the last one
MOST_TOKENS = 2**16  # of the texts of a batch, padding included, unless one alone has more
Text = str | tuple[str, str]


class KeptToken(NamedTuple):
    """The leading token of a filled slot.

    Attributes:
        token: its text; its name, if it has no text in the document, as [CLS].
        start: its first character in the document.
        end: its last character + 1.
        weight: its share in the slot, in [0, 1].
    """

    token: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one text. Fields that do not fit its kind of answer are None.

    Attributes:
        label: name of the class, from a classifier with one class for each text.
        probability: of that class, in [0, 1].
        probabilities: {name: probability} of every class or label.
        labels: names of the labels that hold, the likeliest first, from a classifier with any number of labels.
        value: the number, from a model of regression; {name: number} if it has several outputs.
        summary: the text, from a summarizer.
        completion: what follows the text, from a language model.
        kept: the leading tokens of the filled slots, in the order of the slots, if asked for.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    labels: list[str] | None = None
    value: float | dict[str, float] | None = None
    summary: str | None = None
    completion: str | None = None
    kept: list[KeptToken] | None = None

    @property
    def prediction(self) -> str | list[str] | float | dict[str, float]:
        """The answer itself: label, labels, value, summary or completion, whichever the model gives."""
        fields = self.label, self.labels, self.value, self.summary, self.completion
        given: Any = (one for one in fields if one is not None)
        return next(given)


class AnswerNow:
    """The type of `ANSWER_NOW`, see `predict`."""


ANSWER_NOW = AnswerNow()


def predict(
    model: Any,
    tokenizer: Any,
    texts: Iterable[Text | AnswerNow],
    *,
    batch_size: int = 16,
    block: int = 1024,
    max_tokens: int | None = None,
    kept: bool = False,
) -> Iterator[Prediction]:
    """Answer any number of texts, in their order, while they are being read.

    Texts are read ahead in blocks. Texts of similar length go through the model together, so that little of a batch is
    padding. The first block is one batch, and each block is four times as large as the one before, up to `block`: the
    first answers come soon. The other texts do not change an answer, except by the rounding of sums.

    Args:
        model: a classifier, a summarizer or a language model, as `load_checkpoint` gives it. It is put into eval mode.
        tokenizer: its fast tokenizer.
        texts: any number of texts of any length, empty ones too; for a model of pairs, tuples of two texts. The prefix
            that the model was taught is put before each. `ANSWER_NOW` among them is no text: it asks for the
            answers to all texts before it now, without waiting for more.
        batch_size: texts that go through the model together, >= 1; fewer if they are long.
        block: texts to read ahead, >= 1; fewer if they are long. With 1 nothing is read ahead, and a batch is one
            text.
        max_tokens: cut texts to so many tokens, special ones included; of prompts the end is kept. None: read them in
            full, as far as the model has positions.
        kept: also say which tokens were kept. Of a prompt those are the tokens that lead the slots, and those that
            are kept whole.

    Yields:
        A `Prediction` for each text.

    Raises:
        ValueError: at once, for one text in place of a list, a number below 1, a max_tokens that leaves no room
            beside the special tokens, or `kept` of a model that pools nothing, or whose tokenizer cannot say where
            tokens stand; later, for something that is no text.

    Example:
        >>> model, tokenizer = load_checkpoint("runs/bbc")  # doctest: +SKIP
        >>> [answer.label for answer in predict(model, tokenizer, ["The match ended 2-1."])]  # doctest: +SKIP
        ['sport']
    """
    if isinstance(texts, str | bytes | bytearray):
        raise ValueError(f"expected a list of texts, got {type(texts).__name__}; put a single text into a list")
    for name, value in {"batch_size": batch_size, "block": block}.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    special = least_tokens(tokenizer, prefix=reading_of(model).prefix)
    if max_tokens is not None and max_tokens <= special:
        raise ValueError(f"expected max_tokens > {special}, the tokenizer's special tokens, got {max_tokens}")
    if kept and not tokenizer.is_fast:
        raise ValueError(f"expected a fast tokenizer to say what was kept, got {type(tokenizer).__name__}; leave out "
                         "kept")  # fmt: skip
    if kept and not poolings(model):
        raise ValueError("expected a model that keeps some of its tokens, got one without a pooling; leave out kept")
    limit = min((one for one in (max_tokens, most_tokens(model)) if one is not None), default=None)
    return _predictions(Reader(model.eval(), tokenizer, limit, kept), texts, batch_size, block)


def _predictions(
    reader: Reader, texts: Iterable[Text | AnswerNow], batch_size: int, block: int
) -> Iterator[Prediction]:  # fmt: skip
    for waiting in _blocks(texts, min(batch_size, block), block):
        documents = [one for start in range(0, len(waiting), batch_size)
                     for one in reader.encode(waiting[start : start + batch_size])]  # fmt: skip
        found: dict[int, Prediction] = {}
        for rows in _batches([len(document.ids) for document in documents], batch_size):
            found.update(zip(rows, reader.answer([documents[row] for row in rows]), strict=True))
        yield from (found[row] for row in range(len(waiting)))


def _blocks(texts: Iterable[Text | AnswerNow], first: int, most: int) -> Iterator[list[tuple[str, ...]]]:
    """Put texts into lists: the first of `first`, each of four times as many, up to `most`; `ANSWER_NOW` ends one."""
    size, characters = first, 0
    waiting: list[tuple[str, ...]] = []
    for text in texts:
        if not isinstance(text, AnswerNow):
            parts = (text,) if isinstance(text, str) else text
            if not isinstance(parts, tuple) or len(parts) > 2 or not all(isinstance(part, str) for part in parts):
                raise ValueError(f"expected texts, or tuples of two texts, got {type(text).__name__}")
            check_unicode(*parts)
            waiting.append(parts)
            characters += sum(map(len, parts))
        if waiting and (isinstance(text, AnswerNow) or len(waiting) >= size or characters >= MOST_CHARACTERS):
            yield waiting
            size, waiting, characters = min(GROWTH * size, most), [], 0
    if waiting:
        yield waiting


def check_unicode(*texts: str) -> None:
    """Raise ValueError for a text with half a character, a lone surrogate, which no tokenizer takes."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"expected texts of valid Unicode, got a lone surrogate in {text[:40]!r}") from None


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Put row numbers into batches, longest texts first, of at most `size` texts and `MOST_TOKENS` tokens."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[batch[0]] > MOST_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class Document(NamedTuple):
    """A text in tokens: the model's inputs by name, and the characters of each token if asked for.

    Of a pair, the text is both with a line break between.
    """

    text: str
    fields: dict[str, list[int]]
    spans: list[tuple[int, int]] | None

    @property
    def ids(self) -> list[int]:
        return self.fields["input_ids"]


class Reader:
    """A model that answers batches of documents."""

    def __init__(self, model: Any, tokenizer: Any, limit: int | None, kept: bool):
        self.model, self.tokenizer, self.limit, self.kept = model, tokenizer, limit, kept
        self.reading = reading_of(model)
        self.summarizes, self.completes = model.config.is_encoder_decoder and model.can_generate(), completes(model)
        self.pad = DataCollatorWithPadding(tokenizer)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Document]:
        if self.completes:
            return self._prompts(texts)
        firsts, *seconds = zip(*texts, strict=True) if len({len(parts) for parts in texts}) == 1 else ([],)
        if not firsts:
            raise ValueError("expected either single texts or pairs, got both")
        encoded = read_texts(
            self.tokenizer,
            list(firsts),
            list(seconds[0]) if seconds else None,
            reading=self.reading,
            max_tokens=self.limit,
            spans=self.kept,
            return_attention_mask=False,
        )
        for name in ("length", "cut"):
            encoded.pop(name, None)
        spans = encoded.pop("spans", [None] * len(texts))
        encoded = taken_by(self.model, encoded)
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        for row in rows:
            if not row["input_ids"]:  # a tokenizer without special tokens, and no text
                row |= {name: [0] for name in row} | {"input_ids": [self.tokenizer.pad_token_id]}
        return [Document("\n".join(parts), row, span) for parts, row, span in zip(texts, rows, spans, strict=True)]

    def _prompts(self, texts: Sequence[tuple[str, ...]]) -> list[Document]:
        if any(len(parts) > 1 for parts in texts):
            raise ValueError("expected single texts as prompts, got pairs")
        prompts = [text for (text,) in texts]
        spans: Sequence[list[tuple[int, int]] | None] = [None] * len(prompts)
        if self.kept:
            ids, spans, _ = locate_prompts(self.tokenizer, prompts, self.limit)
        else:
            ids = read_prompts(self.tokenizer, prompts, self.limit)
        ids = [row or [self.tokenizer.pad_token_id] for row in ids]  # no tokens before a prompt, and no prompt
        return [Document(text, {"input_ids": row}, span) for text, row, span in zip(prompts, ids, spans, strict=True)]

    @torch.inference_mode()
    def answer(self, documents: Sequence[Document]) -> list[Prediction]:
        inputs = self.pad([document.fields for document in documents]).to(self.model.device)
        if self.summarizes:
            generated = self.model.generate(**inputs)
            summaries = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
            found: list[dict[str, Any]] = [{"summary": summary.strip()} for summary in summaries]
            assignment = self.model.get_encoder()(**inputs).assignment if self.kept else None
        elif self.completes:
            generated, assignment = complete(self.model, inputs, self.kept)
            completions = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
            found = [{"completion": completion.strip()} for completion in completions]
        else:
            out, assignment = classify(self.model, inputs) if self.kept else (self.model(**inputs), None)
            found = [_fields(answer) for answer in answers(out.logits, self.model.config)]
        if assignment is not None:
            for row, tokens in zip(found, self._kept(assignment, documents), strict=True):
                row["kept"] = tokens
        return [Prediction(**row) for row in found]

    def _kept(self, assignment: Assignment, documents: Sequence[Document]) -> Iterator[list[KeptToken]]:
        """The tokens that lead the filled slots of each document."""
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


def classify(model: Any, inputs: Mapping[str, Tensor]) -> tuple[Any, Assignment | None]:
    """A classifier's output for a batch of texts [B, n], and the assignment of their tokens to the vectors that were
    kept; None if nothing pools.
    """
    with record_assignments() as recorded:
        out = model(**inputs, return_dict=True)
    if hasattr(out, "assignment") or not poolings(model):
        return out, getattr(out, "assignment", None)
    return out, of_prompts(recorded, inputs)  # around a language model


def complete(model: Any, inputs: Mapping[str, Tensor], kept: bool) -> tuple[Tensor, Assignment | None]:
    """Complete a batch of prompts [B, n].

    Args:
        model: a causal language model.
        inputs: of it, by name.
        kept: also say which tokens were kept.

    Returns:
        The tokens that follow [B, T], and the assignment of the prompts' tokens to the vectors that were kept.
    """
    batch, n = inputs["input_ids"].shape
    if not kept:
        return model.generate(**inputs)[:, n:], None
    with record_assignments() as recorded:
        generated = model.generate(**inputs)[:, n:]
    return generated, of_prompts(recorded, inputs).map(lambda x: x[:: len(x) // batch])  # the first beam of each


def of_prompts(recorded: list[Assignment], inputs: Mapping[str, Tensor]) -> Assignment:
    """The assignment that was recorded of a batch of prompts; of one token, or unpooled, they are kept whole."""
    return recorded[0] if recorded else Assignment.of_every_token(inputs["attention_mask"] != 0, torch.float32)


def leading_weights(assignment: Assignment) -> Tensor:
    """The weight [*, k] of each slot's leading token in its slot; without meaning for an empty slot."""
    at = assignment.positions
    if assignment.slots is None:
        return assignment.weights.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    return assignment.weights.gather(-1, at)


def _fields(answer: Any) -> dict[str, Any]:
    """The fields of a `Prediction` from a classifier's answer."""
    if answer.problem_type not in (CLASSES, LABELS):
        return {"value": answer.prediction}
    fields = {"probabilities": dict(answer.values)}
    if answer.problem_type == LABELS:
        return fields | {"labels": answer.prediction}
    return fields | {"label": answer.prediction, "probability": answer.chosen[0].value}
