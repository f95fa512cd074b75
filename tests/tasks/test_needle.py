"""The needle task: sentences of an article at a known, random place in other text."""

from collections import Counter
from statistics import mean

import pytest
from task_files import load

from shtopk.tasks import bbc, filler
from shtopk.tasks.needle import count_pieces, generate
from shtopk.tasks.split import normalise

SIZES = {"train": 150, "validation": 20, "test": 50}


@pytest.fixture(scope="module")
def data():
    return generate(tokens=500, sizes=SIZES)


def evidence(row) -> str:
    return row["text"][row["evidence_start"] : row["evidence_end"]]


def test_sentences_of_an_article_stand_between_paragraphs_and_the_label_is_its_topic(data):
    articles = bbc.split_articles()
    for name, split in data.items():
        assert len(split) == SIZES[name]
        assert split.features["label"].names == bbc.LABELS
        for i, row in enumerate(split):
            article = articles[name][i]
            assert row["label"] == bbc.LABELS.index(article.label)
            assert evidence(row) in normalise(article.text)
            before, after = row["text"][: row["evidence_start"]], row["text"][row["evidence_end"] :]
            assert not before or before.endswith("\n\n")
            assert not after or after.startswith("\n\n")


def test_evidence_and_documents_are_as_long_as_asked_for(data):
    lengths = [count_pieces(evidence(row)) for row in data["train"]]
    assert sum(44 <= length <= 76 for length in lengths) >= 0.98 * len(lengths)
    assert all(485 <= count_pieces(row["text"]) <= 500 for split in data.values() for row in split)


def test_the_place_is_spread_over_the_document_and_says_nothing_about_the_label(data):
    places = [(row["evidence_start"] / len(row["text"]), row["label"]) for row in data["train"]]
    fifths = Counter(int(place * 5) for place, _ in places)
    assert all(15 <= fifths[fifth] <= 50 for fifth in range(5)), fifths  # 30 each on average
    for label in range(5):
        assert mean(place for place, other in places if other == label) == pytest.approx(0.46, abs=0.2)


def test_no_sentence_and_no_passage_is_in_two_splits(data):
    seen = {}
    for name, split in data.items():
        for row in split:
            assert seen.setdefault(evidence(row), name) == name
    spread = {0.0: 0.66, 0.66: 0.78, 0.78: 1.0}
    files = [set(filler.source_files(low, high)) for low, high in spread.items()]
    assert all(files) and not files[0] & files[1] and not files[0] & files[2] and not files[1] & files[2]
    long = [
        {part for row in split for part in row["text"].split("\n\n") if len(part) > 300} for split in data.values()
    ]
    assert not long[0] & long[2]


@pytest.mark.slow
def test_the_documents_are_the_same_every_time_and_others_with_another_seed(data):
    small = {"train": 5, "validation": 2, "test": 3}
    first, again, other = generate(300, small), generate(300, small), generate(300, small, seed=1)
    for name in small:
        assert first[name].to_dict() == again[name].to_dict()
        assert first[name]["text"][:] != other[name]["text"][:]


def test_a_passage_stays_in_one_split_and_a_split_goes_on_when_they_run_out(monkeypatch):
    monkeypatch.setattr(filler, "passages", lambda low, high: iter([["one paragraph " * 40], [f"from {low} " * 60]]))
    data = generate(200, {"train": 1, "validation": 220, "test": 1})
    assert "one paragraph" in data["train"][0]["text"]
    assert not any("one paragraph" in text for name in ("validation", "test") for text in data[name]["text"])
    assert len(data["validation"]) == 220 and len(set(data["validation"]["text"])) > 200


def test_only_long_docstrings_of_documented_files_are_read():
    text = "A sentence of documentation. " * 20
    method = f'    def g(self):\n        """{text}g"""\n    def h(self):\n        """x"""\n'
    source = f'def f():\n    """{text}"""\n\nclass A:\n{method}'
    assert sorted(filler.docstrings(source)) == [text, f"{text}g"]
    assert not list(filler.docstrings(source + "x = 1\n" * 1000))
    assert not list(filler.docstrings(f'"""{text}"""\nthis is no Python'))


@pytest.mark.slow
def test_the_task_is_loaded_by_name():
    data = load(task="needle", needle_tokens=200, max_train_samples=7, data_seed=3)
    assert {name: len(split) for name, split in data.items()} == {"train": 7, "validation": 150, "test": 300}
