"""What needs no model stands beside every model's figures."""

import json

from datasets import Dataset

from shtopk.tasks import word_baselines as module
from shtopk.tasks.word_baselines import class_baselines, label_baselines, most_frequent_class, number_baselines


def split(texts, answers, target="label"):
    return Dataset.from_dict({"text": texts, target: answers})


def test_words_tell_classes_apart_and_the_most_frequent_class_does_not():
    train = split(["goal one", "goal two", "late goal", "bank one", "bank two"], [1, 1, 1, 0, 0])
    assert class_baselines(train, ["the bank", "a goal"]) == {
        "most_frequent_class": [1, 1],
        "tfidf_regression": [0, 1],
    }


def test_with_many_classes_fewer_words_are_learnt(monkeypatch):
    train = split(["goal one", "goal two", "bank two", "bank one"], [1, 1, 0, 0])
    seen = []
    answers = module.answers_by_words
    monkeypatch.setattr(module, "answers_by_words", lambda *given: seen.append(given[-1]) or answers(*given))
    monkeypatch.setattr(module, "MOST_WEIGHTS", 8)
    assert class_baselines(train, ["the bank"])["tfidf_regression"] == [0] and seen == [4]


def test_of_equally_frequent_classes_the_lowest_counts():
    assert most_frequent_class([3, 1, 3, 1]) == 1


def test_nothing_to_learn_from_is_left_out():
    assert list(class_baselines(split(["goal", "bank"], [1, 1]), ["goal"])) == ["most_frequent_class"]
    assert list(class_baselines(split(["a", "b"], [0, 1]), ["a"])) == ["most_frequent_class"]


def test_words_tell_labels_apart_and_the_usual_ones_do_not(recwarn):
    texts = ["goal one late", "goal bank late", "bank two late", "late day"] * 5
    train = split(texts, [[0, 2], [0, 1, 2], [1, 2], [2]] * 5, "labels")
    found = label_baselines(train, ["goal", "the bank", "goal and bank", "day"])
    assert found["most_frequent_labels"] == [[2]] * 4
    assert found["tfidf_regression"] == [[0, 2], [1, 2], [0, 1, 2], [2]]
    assert not recwarn  # of a label that every document has


def test_too_many_labels_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "MOST_LABELS", 2)
    train = split(["goal one", "bank two", "day three"], [[0], [1], [2]], "labels")
    assert list(label_baselines(train, ["goal"])) == ["most_frequent_labels"]


def test_words_tell_numbers_apart_and_the_mean_does_not():
    train = split(["goal one", "bank two"] * 20, [1.0, 9.0] * 20, "value")
    found = number_baselines(train, ["a goal", "the bank"])
    assert found["mean_of_training"] == [5.0, 5.0]
    assert found["tfidf_regression"][0] < 3 < 7 < found["tfidf_regression"][1]


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
