"""What needs no model stands beside every classification."""

import json

from datasets import Dataset

from shtopk.tasks import class_baselines as module
from shtopk.tasks.class_baselines import class_baselines, most_frequent_class, tfidf_regression


def split(texts, labels):
    return Dataset.from_dict({"text": texts, "label": labels})


def test_words_tell_classes_apart_and_the_most_frequent_class_does_not():
    train = split(["goal one", "goal two", "late goal", "bank one", "bank two"], [1, 1, 1, 0, 0])
    assert class_baselines(train, ["the bank", "a goal"]) == {
        "most_frequent_class": [1, 1],
        "tfidf_regression": [0, 1],
    }


def test_of_equally_frequent_classes_the_lowest_counts():
    assert most_frequent_class([3, 1, 3, 1]) == 1


def test_nothing_to_learn_from_is_left_out():
    assert list(class_baselines(split(["goal", "bank"], [1, 1]), ["goal"])) == ["most_frequent_class"]
    assert tfidf_regression(["a", "b"], [0, 1], ["a"]) is None


def test_of_many_documents_some_are_learnt_from(monkeypatch):
    monkeypatch.setattr(module, "MOST_DOCUMENTS", 10)
    train = split(["goal late"] * 500 + ["bank open"] * 500, [0] * 500 + [1] * 500)
    assert class_baselines(train, ["bank", "goal"])["tfidf_regression"] == [1, 0]


def test_a_run_shows_them_in_its_results_and_its_card(words, trained):
    run = trained([*words, "--epochs", "1"])
    baselines = json.loads((run / "all_results.json").read_text())["baselines"]
    assert baselines["tfidf_regression"]["accuracy"] == 1.0
    assert baselines["most_frequent_class"]["accuracy"] == 0.5
    card = (run / "README.md").read_text()
    assert "| metric | this model | most frequent class | tfidf regression |" in card
    assert "| 0.5000 | 1.0000 |" in card
