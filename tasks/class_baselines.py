"""Classes that need no model: the most frequent one, and logistic regression on the words of a document.

Their figures belong beside those of every classifier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shtopk.tasks.table import joined

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset

MOST_DOCUMENTS = 20_000  # of the training split that the regression learns from, spread evenly over it
MOST_WORDS = 100_000


def class_baselines(train: Dataset, texts: Sequence[str], target: str = "label") -> dict[str, list[int]]:
    """{name: a class number for each text}, learnt from a training split with columns "text" and target.

    The regression is left out where it has nothing to learn from: a single class, or no word of two letters or digits.
    """
    frequent = most_frequent_class(train[target][:])
    found = {"most_frequent_class": [frequent] * len(texts)}
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_DOCUMENTS)).astype(int))
    learnt = train.select(rows)
    answers = tfidf_regression(joined(learnt), learnt[target][:], texts)
    return found if answers is None else found | {"tfidf_regression": answers}


def most_frequent_class(labels: Sequence[int]) -> int:
    """The class with the most documents; of several the lowest.

    Example:
        >>> most_frequent_class([2, 1, 1, 2, 0])
        1
    """
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def tfidf_regression(train_texts: Sequence[str], labels: Sequence[int], texts: Sequence[str]) -> list[int] | None:
    """Answer every text by logistic regression on TF-IDF vectors of the training texts.

    None: these have a single class, or no word of two letters or digits.

    Example:
        >>> tfidf_regression(["a goal", "the goals", "the bank"], [0, 0, 1], ["no bank", "one goal"])
        [1, 0]
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # late: it takes long to import
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return None
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=MOST_WORDS, dtype=np.float32)
    try:
        vectors = vectorizer.fit_transform(train_texts)
    except ValueError:  # no words
        return None
    # Weak regularization, as usual for vectors of length 1.
    regression = LogisticRegression(C=10, max_iter=1000).fit(vectors, labels)
    return regression.predict(vectorizer.transform(texts)).tolist()
