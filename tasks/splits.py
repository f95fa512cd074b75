"""Fixed splits: which document belongs where follows from its text alone, the same on every machine."""

import hashlib
from collections import defaultdict

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

TEST, VALIDATION = 0.2, 0.1  # shares of every class; the rest is for training


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def stratified_split(texts: list[str], labels: list[str], shares: dict[str, float]) -> dict[str, list[int]]:
    """Indices by split; each class is divided by the same shares, in the order of its texts' hashes.

    The last split named gets what rounding leaves over. Equal texts have to be removed before.
    """
    classes = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    split = {name: [] for name in shares}
    for label in sorted(classes):
        members = sorted(classes[label], key=lambda index: digest(texts[index]))
        start, cumulative = 0, 0.0
        for name, share in shares.items():
            cumulative += share
            end = len(members) if name == list(shares)[-1] else round(cumulative * len(members))
            split[name] += members[start:end]
            start = end
    return {name: sorted(members, key=lambda index: digest(texts[index])) for name, members in split.items()}


def spread_sample(labels: list, count: int) -> list[int]:
    """Indices of `count` documents, drawn in turn from the classes, each class from its front."""
    classes = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    turns = sorted((turn, str(label), index) for label, rows in classes.items() for turn, index in enumerate(rows))
    return sorted(index for _, _, index in turns[:count])


def as_dataset(splits: dict[str, dict[str, list]], names: list[str], extra: dict | None = None) -> DatasetDict:
    """Columns by split -> a DatasetDict whose labels are ClassLabels."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)} | (extra or {}))
    return DatasetDict({name: Dataset.from_dict(columns, features=features) for name, columns in splits.items()})
