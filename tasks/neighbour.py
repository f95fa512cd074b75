"""The summary of the most similar training document: the score of memory alone."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

SIMILARITIES = 1 << 22  # of documents with training documents, held at a time: at most 80 MB


def nearest_neighbour(train_texts: Sequence[str], train_summaries: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Answer every text with the summary of its nearest training text, by the cosine of their TF-IDF vectors.

    A figure near a model's says that training and test share documents, or that the model only remembers.

    Args:
        train_texts: at least one with a word of two letters or digits.
        train_summaries: one for each of them.
        texts: what to summarize. One that shares no word with any training text gets the first training summary.

    Returns:
        A summary for each of `texts`. Of equally near ones, the first.

    Raises:
        ValueError: unequal lists, or no training text with a word in it.

    Example:
        >>> nearest_neighbour(["the red fox", "a blue whale"], ["fox", "whale"], ["whales, or one whale"])
        ['whale']
    """
    if len(train_texts) != len(train_summaries) or not len(train_texts):
        raise ValueError(
            f"expected as many train_texts as train_summaries, got {len(train_texts)} and {len(train_summaries)}"
        )
    if not len(texts):
        return []
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    train = vectorizer.fit_transform(train_texts).T.tocsr()  # [words, train texts], of length 1 each
    rows = max(1, SIMILARITIES // len(train_texts))
    nearest: list[int] = []
    for start in range(0, len(texts), rows):
        similarities = vectorizer.transform(texts[start : start + rows]) @ train
        nearest += similarities.toarray().argmax(axis=1).tolist()
    summaries = list(train_summaries)  # a column of a data set would read from disk for every index
    return [summaries[i] for i in nearest]
