"""Answers that need no model: the usual one whatever the document, and regression on the words of a document.

Their figures belong beside those of every model that answers with classes, labels or numbers.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shtopk.tasks.labels import indicators
from shtopk.tasks.table import joined

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset

MOST_DOCUMENTS = 20_000  # of the training split that a regression learns from, spread evenly over it
MOST_WORDS = 100_000
MOST_WEIGHTS = 10_000_000  # one for each word and class, so that learning them fits into memory
MOST_LABELS = 100  # each has a regression of its own
REGRESSION = "tfidf_regression"


def class_baselines(train: Dataset, texts: Sequence[str]) -> dict[str, list[int]]:
    """{name: a class number for each text}, learnt from a training split with the column "label".

    The regression is left out where it has nothing to learn from: a single class, or no word of two letters or digits.
    """
    frequent = most_frequent_class(train["label"][:])
    found = {"most_frequent_class": [frequent] * len(texts)}
    learnt = _learnt(train)
    if (classes := len(set(learnt["label"][:]))) < 2:
        return found
    answers = answers_by_words(logistic(), joined(learnt), learnt["label"][:], texts, MOST_WEIGHTS // classes)
    return found if answers is None else found | {REGRESSION: answers.tolist()}


def label_baselines(train: Dataset, texts: Sequence[str]) -> dict[str, list[list[int]]]:
    """{name: label numbers for each text}, learnt from a training split with the column "labels".

    The usual answer has the labels of more than half of the documents. The regression, one for each label, is left out
    where there are more than MOST_LABELS, and where there are no words.
    """
    from sklearn.multiclass import OneVsRestClassifier  # late: it takes long to import

    counts = Counter(label for labels in train["labels"][:] for label in labels)
    usual = sorted(label for label, count in counts.items() if 2 * count > len(train))
    found = {"most_frequent_labels": [usual] * len(texts)}
    if not counts or max(counts) >= MOST_LABELS:
        return found
    learnt = _learnt(train)
    table = indicators(learnt["labels"][:], max(counts) + 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label")  # that all or none of the documents have a label
        answers = answers_by_words(OneVsRestClassifier(logistic()), joined(learnt), table, texts)
    return found if answers is None else found | {REGRESSION: [np.flatnonzero(row).tolist() for row in answers]}


def number_baselines(train: Dataset, texts: Sequence[str]) -> dict[str, list[float]]:
    """{name: a number for each text}, learnt from a training split with the column "value".

    The regression is left out where there are no words.
    """
    from sklearn.linear_model import Ridge  # late: it takes long to import

    found = {"mean_of_training": [float(np.mean(train["value"][:]))] * len(texts)}
    learnt = _learnt(train)
    answers = answers_by_words(Ridge(), joined(learnt), learnt["value"][:], texts)
    return found if answers is None else found | {REGRESSION: answers.tolist()}


def most_frequent_class(labels: Sequence[int]) -> int:
    """The class with the most documents; of several the lowest.

    Example:
        >>> most_frequent_class([2, 1, 1, 2, 0])
        1
    """
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def logistic() -> Any:
    """Weakly regularized logistic regression, as usual for vectors of length 1."""
    from sklearn.linear_model import LogisticRegression  # late: it takes long to import

    return LogisticRegression(C=10, max_iter=1000)


def answers_by_words(
    regression: Any, train_texts: Sequence[str], answers: Any, texts: Sequence[str], most_words: int = MOST_WORDS
) -> np.ndarray | None:
    """What a regression of scikit-learn says to texts by their TF-IDF vectors, of at most so many words, the frequent
    ones; None: no word of two letters or digits.

    Example:
        >>> answers_by_words(logistic(), ["a goal", "the goals", "the bank"], [0, 0, 1], ["no bank", "one goal"])
        array([1, 0])
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # late: it takes long to import

    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=min(most_words, MOST_WORDS), dtype=np.float32)
    try:
        vectors = vectorizer.fit_transform(train_texts)
    except ValueError:  # no words
        return None
    return regression.fit(vectors, answers).predict(vectorizer.transform(texts))


def _learnt(train: Dataset) -> Dataset:
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_DOCUMENTS)).astype(int))
    return train.select(rows)
