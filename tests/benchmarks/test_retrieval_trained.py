"""The retrieval benchmark with an encoder that learns: a tiny random one, documents of letters and words."""

import json
import random
import sys

import pytest
import retrieval_trained
import torch
from retrieval_tasks import Texts
from retrieval_trained import DEFAULT, EVALUATIONS, build, evaluate, fit, parse
from retrieval_ways import WAYS
from tiny import WORDS

WAY = {way.name: way for way in WAYS}
LETTERS = [word for word in WORDS if len(word) == 1]


@pytest.fixture(scope="module")
def splits():
    """Two letters among the forty words of a document are what its query, or both its queries, ask for."""
    noise = random.Random(0)

    def split(count):
        pairs = []
        for i in range(count):
            asked = noise.sample(LETTERS, 2)
            text = ["shares"] * 40
            for letter, place in zip(asked, noise.sample(range(40), 2), strict=True):
                text[place] = letter
            pairs.append((" ".join(text), [" ".join(asked), " ".join(reversed(asked))][: 1 + i % 2]))
        return Texts.of(pairs)

    return {"train": split(160), "test": split(24)}


@pytest.fixture
def arguments(encoder, monkeypatch, tmp_path):
    def make(*words):
        given = [f"--encoder={encoder}", f"--results={tmp_path}", "--tasks=bbc", "--tokens=48", "--batch=16"]
        monkeypatch.setattr(sys, "argv", ["retrieval_trained.py", *given, *words])
        return parse()

    return make


def trained(way, splits, arguments, k=3):
    torch.manual_seed(0)
    model = build(way, k, arguments)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    fit(model, splits["train"], 0, arguments)
    return model, {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("name", DEFAULT)
def test_every_way_trains_the_encoder_through_its_pooling(name, splits, arguments):
    way = WAY[name]
    given = arguments("--documents=16", "--epochs=1")
    model, changed = trained(way, splits, given, k=way.k or 3)
    assert any("word_embeddings" in one for one in changed)
    row = evaluate(model, way, splits["test"])[name]
    assert row["vectors"] == {"all tokens": 42, "mean of all tokens": 1}.get(name, 3)
    assert len(row["ranks"].split()) == 36


def test_training_finds_more(splits, arguments, monkeypatch):
    monkeypatch.setitem(retrieval_trained.LEARNING_RATES, "whole", 1e-3)
    given, way = arguments("--epochs=6"), WAY["successive halving"]
    before = evaluate(build(way, 3, given), way, splits["test"])[way.name]
    model, changed = trained(way, splits, given)
    assert evaluate(model, way, splits["test"])[way.name]["mrr"] > before["mrr"] + 0.1
    assert any("scorer" in name for name in changed)


def test_with_a_lora_the_encoder_itself_stays_as_it_is(splits, arguments):
    model, changed = trained(WAY["successive halving"], splits, arguments("--epochs=1", "--lora=4"))
    assert all("lora_" in name or "scorer" in name for name in changed)
    for part in ("query", "intermediate", "scorer"):
        assert any(part in name for name in changed)
    _, changed = trained(WAY["means of k stretches"], splits, arguments("--epochs=1", "--lora=4"))
    assert changed and all("lora_" in name for name in changed)


def test_a_trained_encoder_is_evaluated_in_several_ways_and_stays_as_it_was(splits, arguments, monkeypatch):
    way = WAY["successive halving"]
    model, _ = trained(way, splits, arguments("--documents=16", "--epochs=1"))
    monkeypatch.setitem(EVALUATIONS, way.name, {"soft": {"temperature": 1e4}, "the same": {"temperature": 1.0}})
    options = model[-2].pooling.options
    rows = evaluate(model, way, splits["test"])
    assert model[-2].pooling.options is options
    assert list(rows) == [way.name, "soft", "the same"]
    assert rows["the same"]["ranks"] == rows[way.name]["ranks"] != rows["soft"]["ranks"]


def test_the_benchmark_goes_on_where_it_stopped(splits, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_trained, "texts", lambda task, tokens: splits)
    words = ("--documents=16", "--epochs=1", "--k", "3", "--seeds", "0", "1", "--ways", "successive halving")
    arguments(*words)
    retrieval_trained.main()
    record = json.loads((tmp_path / "retrieval-trained.json").read_text())
    rows = ["successive halving", *EVALUATIONS["successive halving"]]
    assert [(run["way"], run["seed"]) for run in record["runs"]] == [(row, seed) for seed in (0, 1) for row in rows]
    assert all(f"| {row} | 3 |" in (tmp_path / "retrieval-trained.md").read_text() for row in rows)
    arguments(*words, "means of k stretches")
    retrieval_trained.main()
    more = json.loads((tmp_path / "retrieval-trained.json").read_text())["runs"]
    assert more[: len(record["runs"])] == record["runs"]
    assert [run["way"] for run in more[len(record["runs"]) :]] == ["means of k stretches"] * 2
    arguments(*words, "--tokens=40")
    with pytest.raises(SystemExit, match="has figures of tokens 48, this is 40"):
        retrieval_trained.main()
