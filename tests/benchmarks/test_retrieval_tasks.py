"""The corpora of the retrieval benchmark, from made-up documents."""

import datasets
import made_up_rfcs
import pytest
import retrieval_tasks
from retrieval_tasks import Texts, check, texts


@pytest.fixture
def rfcs(tmp_path, monkeypatch):
    """Thirty RFCs; all abstracts begin with the same sentence."""
    for number in range(1, 31):
        abstract = f"This is a sentence that every one of the abstracts has alike. {made_up_rfcs.prose(number, 40)}"
        made_up_rfcs.write(tmp_path / "rfcs", number, abstract=abstract)
    monkeypatch.setattr(retrieval_tasks, "RFC_FOLDER", tmp_path / "rfcs")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_sentences_of_the_abstract_ask_for_the_body_of_an_rfc(rfcs):
    check("rfc")
    found = texts("rfc")
    assert sum(len(split.documents) for split in found.values()) == 30
    for split in found.values():
        assert len(set(split.queries)) == len(split.queries) == 3 * len(split.documents)  # four fit, three are drawn
        assert split.owners == [i for i in range(len(split.documents)) for _ in range(3)]
        for query, owner in zip(split.queries, split.owners, strict=True):
            assert query not in split.documents[owner]
            assert "alike" not in query  # it would ask for all


def test_rfcs_that_nobody_fetched_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_tasks, "RFC_FOLDER", tmp_path / "none")
    with pytest.raises(ValueError, match=r"expected a folder of .* found none at .*none; `make rfcs` fetches one"):
        check("rfc")


def test_a_summary_asks_for_its_function(monkeypatch):
    rows = {"test": [("def add(a, b):\nThe numbers.", "Add two numbers."), ("def none():\nNothing.", "Return it.")]}
    monkeypatch.setattr(retrieval_tasks, "_rows", lambda task: rows)
    found = texts("docstrings")["test"]
    assert found.documents == [text for text, _ in rows["test"]]
    assert (found.queries, found.owners) == (["Add two numbers.", "Return it."], [0, 1])


def test_a_document_that_nobody_asks_for_is_left_out():
    assert Texts.of([("a", []), ("b", ["x", "y"]), ("c", ["z"])]) == (["b", "c"], ["x", "y", "z"], [0, 0, 1])
