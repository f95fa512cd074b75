"""Scores that were taught in different ways, pooled in the same ones."""

import json

import numpy as np
import pytest
import teachers
import teachers_table
import torch
from frozen import Classifier, Split, fit, predict
from record import RESULTS
from teachers import NAMES, POOLERS, Search, Taught, Topics, evaluated
from torch import nn

from shtopk import TopKPooling

D, K = 6, 3


@pytest.fixture
def topics(monkeypatch):
    """Random documents of two classes."""
    torch.manual_seed(0)
    lengths = torch.randint(4, 15, (48,))
    total = int(lengths.sum())
    split = Split(torch.randn(total, D), torch.zeros(total, dtype=torch.bool), lengths, torch.arange(48) % 2)

    class Frozen:
        classes = 2
        splits = {"train": split, "validation": split, "test": split}

        def __init__(self, task, device):
            pass

    monkeypatch.setattr(teachers, "Frozen", Frozen)
    return Topics("needle")


def test_the_scores_of_our_row_pool_as_the_row_itself_does(topics):
    (row,) = (row for row in Topics.rows if row.name == "successive halving")
    taught = topics.teach(row, K, seed=1)
    own = TopKPooling(D, K, eval_operator="select_and_merge", scorer=taught.scorer).eval()

    torch.manual_seed(1)
    classifier = Classifier(D, 2, K, row)
    fit(classifier, topics.frozen.splits["train"], 1, row.scorer_learning_rate)
    predictions, _ = predict(classifier, topics.frozen.splits["test"])
    expected = (predictions == topics.frozen.splits["test"].labels).numpy()
    np.testing.assert_array_equal(taught.right(own, "test"), expected)


@pytest.mark.parametrize("kind", [Topics, Search])
def test_every_teacher_has_a_scorer_of_its_own_kind(kind):
    rows = [row for row in kind.rows if row.name in NAMES]
    assert len({row.name for row in rows}) == len(rows) >= 7
    for row in rows:
        module = Classifier(D, 2, K, row).pooling if kind is Topics else row.build(D, K).pooling
        assert isinstance(module.scorer, nn.Module)


def test_the_temperature_is_chosen_on_the_validation_split_alone():
    shares = {"validation": {1.0: 0.5, 4.0: 0.9, 1 / 4: 0.9, 1 / 16: 0.1}, "test": dict.fromkeys(POOLERS["hard"], 0.0)}
    shares["test"] |= {1.0: 1.0, 4.0: 0.3, 1 / 4: 0.6, 1 / 16: 1.0}

    def right(pooling, split):
        return np.arange(10) < 10 * shares[split][pooling.options.temperature]

    found = evaluated(Taught(nn.Linear(D, 1), right), "select_and_merge", D, K)
    assert found == {
        "pooled_by": "select_and_merge",
        "temperature": 4.0,  # level with 1/4, and first
        "validation": 0.9,
        "right": "1110000000",
    }


def test_what_an_operator_makes_of_its_own_scores_is_what_its_row_says():
    """LapSum's row in `make compare`, and in `make retrieval`, is pooled by hard top-k."""
    record = json.loads((RESULTS / "teachers.json").read_text())
    topics = json.loads((RESULTS / "compare-needle.json").read_text())["runs"]
    searches = json.loads((RESULTS / "retrieval.json").read_text())["runs"]
    for k in (8, 32):
        rows = [
            run["correct"] for run in topics if (run["variant"], run["k"]) == ("LapSum", str(k)) and run["seed"] < 3
        ]
        answers = teachers_table.answers(record, "needle", k, "hard")["LapSum"]
        assert ["".join(map(str, right)) for right in answers] == rows
        found = [run["recall@1"] for run in searches if (run["task"], run["way"], run["k"]) == ("bbc", "LapSum", k)]
        answers = teachers_table.answers(record, "search: bbc", k, "hard")["LapSum"]
        assert [right.mean() for right in answers] == pytest.approx(found)


def test_the_best_of_a_column_and_what_is_level_with_it_are_bold():
    rights = {"needle": ("11111111", "00000001"), "search: bbc": ("10101", "11111")}
    runs = [
        {"task": task, "teacher": teacher, "k": 8, "seed": seed, "pooled_by": operator, "right": right}
        for task, both in rights.items()
        for teacher, right in zip("ab", both, strict=True)
        for seed in (0, 1)
        for operator in POOLERS
    ]
    tasks = {"needle": {}, "search: bbc": {"queries_of_each": "2 2 1"}}
    record = {"command": "c", "device": "d", "torch": "t", "tasks": tasks, "runs": runs}
    text = teachers_table.summary(record)
    assert "| a | **1.000 ± 0.000** | 0.600 ± 0.000 |" in text
    assert "| b | 0.125 ± 0.000 | **1.000 ± 0.000** |" in text
    assert text.count("|---|") == 1 and teachers_table.table(record).count("|---|") == 2
