"""The report on a classifier agrees with scikit-learn, and its intervals mean what they say."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef, roc_auc_score

from shtopk.tasks.report import classification_report

NAMES = ["arts", "money", "sport", "none"]


def answers(n, seed=0, classes=3):
    generator = np.random.default_rng(seed)
    references = generator.integers(classes, size=n)
    logits = generator.normal(size=(n, len(NAMES))) + 1.5 * np.eye(len(NAMES))[references]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.argmax(1), references, probabilities


def test_the_metrics_are_those_of_scikit_learn():
    predictions, references, probabilities = answers(500, classes=4)
    found = classification_report(predictions, references, probabilities, NAMES)
    assert found["metrics"] == pytest.approx({
        "accuracy": accuracy_score(references, predictions),
        "f1": f1_score(references, predictions, average="macro"),
        "f1_weighted": f1_score(references, predictions, average="weighted"),
        "mcc": matthews_corrcoef(references, predictions),
        "auroc": roc_auc_score(references, probabilities, multi_class="ovr"),
    })  # fmt: skip
    assert found["confusion"] == confusion_matrix(references, predictions).tolist()


def test_of_hundreds_of_classes_the_most_frequent_mistakes_are_listed():
    names = [f"class {i}" for i in range(300)]
    references = np.array([299, 7, 7, *range(200)])
    predictions = np.array([0, 8, 8, *range(200)])
    found = classification_report(predictions, references, np.eye(300)[predictions], names)
    assert "confusion" not in found and found["confusions"] == [
        {"class": "class 7", "answered": "class 8", "documents": 2},
        {"class": "class 299", "answered": "class 0", "documents": 1},
    ]
    others = classification_report((references + 1) % 300, references, np.eye(300)[references], names)
    assert len(others["confusions"]) == 100


def test_a_class_without_documents_has_no_auroc_and_counts_in_macro_f1_only_if_it_is_predicted():
    predictions, references, probabilities = answers(200)
    found = classification_report(predictions, references, probabilities, NAMES)
    assert "auroc" not in found["metrics"]
    assert found["metrics"]["f1"] == pytest.approx(f1_score(references, predictions, average="macro", zero_division=0))
    assert found["classes"]["none"]["documents"] == 0
    never = classification_report(references, references, probabilities, NAMES)
    assert never["metrics"]["f1"] == 1


def test_two_classes_have_the_auroc_of_the_second():
    references, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    found = classification_report([0, 1, 0, 1], references, np.stack([1 - scores, scores], 1), ["no", "yes"])
    assert found["metrics"]["auroc"] == 0.75


def test_intervals_shrink_with_documents_and_hold_the_figure():
    widths = []
    for n in (100, 10_000):
        found = classification_report(*answers(n, classes=4), NAMES)
        for name, (low, high) in found["intervals"].items():
            assert low < found["metrics"][name] < high
        widths.append(np.subtract(*found["intervals"]["accuracy"][::-1]))
    assert 5 < widths[0] / widths[1] < 20  # the root of 100


def test_the_order_of_documents_changes_nothing():
    predictions, references, probabilities = answers(100)
    order = np.random.default_rng(1).permutation(100)
    assert classification_report(predictions, references, probabilities, NAMES) == classification_report(
        predictions[order], references[order], probabilities[order], NAMES
    )


def test_one_document_is_enough():
    found = classification_report([1], [1], np.array([[0.2, 0.8]]), ["a", "b"])
    assert found["metrics"] == {"accuracy": 1, "f1": 1, "f1_weighted": 1, "mcc": 0}
