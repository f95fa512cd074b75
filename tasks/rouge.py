"""ROUGE with confidence intervals, and signs of degenerate output, by `evaluate` without the hub.

ROUGE: C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, as the package rouge_score counts it.
"""

import re
from collections.abc import Sequence

import numpy as np
from datasets import Value
from rouge_score.rouge_scorer import RougeScorer

from shtopk.tasks.metrics import Metric
from shtopk.tasks.names import ROUGE
from shtopk.tasks.rouge_words import Words
from shtopk.tasks.rouge_words import words as words_of_any_script
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise


def document_scores(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """The F-measures of every document, [n, 4] in the order of `ROUGE`, in [0, 1].

    rouge1 and rouge2 count shared words and pairs of words. rougeL takes the longest common subsequence of the whole
    texts, rougeLsum that of each reference sentence with all predicted ones. Words are runs of letters and digits, in
    lower case and, in ASCII, stemmed (Porter), as is usual in papers; where a script has no spaces between words, each
    letter is one (`rouge_words.Words`). Texts of one word score 0 in rouge2. Sentences are those of
    `shtopk.tasks.sentences`. A line break ends one, so join lines that were broken at a fixed width.
    """
    scorer = RougeScorer(list(ROUGE), tokenizer=Words())
    scores = np.zeros((len(references), len(ROUGE)))
    for row, prediction, reference in zip(scores, predictions, references, strict=True):
        found = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
        row[:] = [found[name].fmeasure for name in ROUGE]
    return scores


def confidence_interval(scores: np.ndarray, resamples: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper bounds, [m] each, of the 95 % confidence interval of the mean over documents.

    They come from the percentile bootstrap, and do not depend on the order of the scores. They reflect the choice of
    documents, not that of the training run.

    Args:
        scores: [n, m], m figures for each of n documents, n >= 1.
        resamples: samples of n documents, drawn with replacement; >= 1.
        seed: of the samples.
    """
    from scipy.stats import bootstrap  # late: it takes long to import

    if len(scores) == 1:  # which scipy refuses
        return scores[0], scores[0]
    scores = np.sort(scores, axis=0)  # every column by itself: a bound depends on one column alone
    # One resample at a time: all of them at once would need resamples * n numbers.
    options = {"n_resamples": resamples, "batch": 1, "method": "percentile", "rng": seed}
    interval = bootstrap((scores,), np.mean, **options).confidence_interval
    return interval.low, interval.high


def words(text: str) -> list[str]:
    """The words, without case and punctuation, in any script."""
    return re.findall(r"\w+", text.lower()) if text.isascii() else words_of_any_script(text)


def repeats_trigram(text: str) -> bool:
    """Whether three words in a row come again, whatever their case and punctuation."""
    found = words(text)
    trigrams = list(zip(found, found[1:], found[2:], strict=False))
    return len(set(trigrams)) < len(trigrams)


class RougeAndDegeneration(Metric):
    """Mean ROUGE with 95 % confidence intervals; lengths, repetition, and empty and equal predictions."""

    element = Value("string")

    def _compute(self, predictions, references):
        scores, n = document_scores(predictions, references), len(predictions)
        columns = zip(ROUGE, scores.mean(axis=0), *confidence_interval(scores), strict=True)
        return {
            f"{name}{bound}": float(value)
            for name, *values in columns
            for bound, value in zip(("", "_low", "_high"), values, strict=True)
        } | {
            "prediction_words": sum(len(words(text)) for text in predictions) / n,
            "reference_words": sum(len(words(text)) for text in references) / n,
            "prediction_repeats": sum(map(repeats_trigram, predictions)) / n,
            "reference_repeats": sum(map(repeats_trigram, references)) / n,
            "empty": sum(not words(text) for text in predictions) / n,
            "distinct": len(set(map(normalise, predictions))) / n,
        }


def exactly_matches(prediction: str, reference: str) -> bool:
    """Whether two texts are the same but for whitespace.

    Example:
        >>> exactly_matches(" Ada  Lovelace", "Ada Lovelace"), exactly_matches("ada", "Ada")
        (True, False)
    """
    return normalise(prediction) == normalise(reference)


def completion_metrics(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Figures of what was generated after prompts.

    Args:
        predictions: completions, n >= 1.
        references: the true ones, as many.

    Returns:
        The figures by their names, `names.COMPLETION_METRICS`: exact_match, the share of completions that are right as
        a whole (see `exactly_matches`), in [0, 1], with its 95 % confidence interval; and those of
        `summarization_metrics`, which say more of long ones.

    Raises:
        ValueError: lists of unequal length, or empty ones.

    Example:
        >>> completion_metrics(["4711", "12"], ["4711", "17"])["exact_match"]
        0.5
    """
    others = summarization_metrics(predictions, references)
    right = [[float(exactly_matches(*pair))] for pair in zip(predictions, references, strict=True)]
    (low,), (high,) = confidence_interval(np.array(right))
    return {
        "exact_match": float(np.mean(right)),
        "exact_match_low": float(low),
        "exact_match_high": float(high),
    } | others


def summarization_metrics(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE with confidence intervals, and signs of degenerate output.

    Args:
        predictions: summaries.
        references: the true ones, as many.

    Returns:
        The figures by their names, `names.SUMMARIZATION_METRICS`:

        - rouge1, rouge2, rougeL, rougeLsum: see `document_scores`; with _low and _high see `confidence_interval`;
        - prediction_words, reference_words: mean number of words, which are runs of letters and digits, or letters
          of a script without spaces;
        - prediction_repeats, reference_repeats: share of the texts in which three words in a row come again;
        - empty: share of the predictions without a letter or digit;
        - distinct: different predictions / predictions; 1 / n if all are the same.

    Raises:
        ValueError: empty lists, lists of unequal length, or an element that is no text.

    Example:
        >>> metrics = summarization_metrics(["The cat ran."], ["The cat sat."])
        >>> [round(metrics[name], 3) for name in ("rouge1", "rouge2", "rougeL")]
        [0.667, 0.5, 0.667]
    """
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise ValueError(f"expected {name} to be a list of texts, got the text {texts[:40]!r}")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"expected {name}[{i}] to be a text, got {text!r} ({type(text).__name__})")
    return RougeAndDegeneration.figures(list(predictions), list(references))
