"""The record of a task of prompts and completions: what is to follow each prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shtopk.integrations.reading import WHOLE
from shtopk.tasks.names import COMPLETION_METRICS
from shtopk.tasks.preprocess import encode_completions, encode_prompts
from shtopk.tasks.task import Task

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset


@dataclass(frozen=True)
class Completion(Task):
    """Prompts, in the column "text", and what follows each of them. The column "completion" is text.

    Besides `metrics`, the loss of a completion's tokens and its exponential, the perplexity, are measured.
    """

    target = "completion"
    metrics = COMPLETION_METRICS
    selectors = ("loss", "rougeL", "exact_match", "rouge1", "rouge2", "rougeLsum")
    lower_is_better = frozenset({"loss"})
    shown = ("loss", "perplexity", "exact_match", "rougeL", "prediction_words")

    def encode(self, tokenizer, texts, arguments, start=None, how=WHOLE):
        prompts = encode_prompts(tokenizer, texts, arguments.max_tokens, arguments.num_proc)
        return encode_completions(tokenizer, prompts, arguments.max_completion_tokens, arguments.num_proc)

    def decode(self, tokenizer, answers, thresholds=None) -> list[str]:
        return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def compute_metrics(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        from shtopk.tasks.rouge import completion_metrics

        return completion_metrics(predictions, references)

    def baselines(self, texts: Mapping[str, Dataset]) -> dict[str, list[str]]:
        if "train" not in texts:
            return {}
        ((usual, _),) = Counter(texts["train"]["completion"][:]).most_common(1)
        return {"most_frequent": [usual] * len(texts["test"])}
