"""An experiment: what an evaluation needs can be had without optimizer, schedule and folder."""

import pytest
import torch
from run_files import rows_of
from transformers import AutoModelForSequenceClassification

import train
from shtopk.training import Experiment, evaluate


def test_a_saved_model_is_evaluated_without_training_anything(words, tmp_path, monkeypatch):
    results = train.main([*words, "--epochs", "2"])
    monkeypatch.setattr(torch.optim.AdamW, "__init__", None)
    before = sorted(tmp_path.rglob("*"))
    experiment = Experiment.prepare(words)
    experiment.model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    tested, predictions, _ = evaluate(experiment, "test", "test")
    assert tested["test_accuracy"] == results["test_accuracy"]
    names = [experiment.model.config.id2label[i] for i in predictions]
    assert names == [row["prediction"] for row in rows_of(tmp_path / "run" / "predictions.jsonl")]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_is_made_when_it_is_asked_for(words):
    experiment = Experiment.prepare([*words, "--backbone", "/nowhere"])
    assert experiment.texts["test"].num_rows == 12
    with pytest.raises(ValueError, match="/nowhere"):
        _ = experiment.model


def test_the_seed_draws_the_same_model_whatever_was_drawn_before(words):
    first = Experiment.prepare(words).model
    torch.rand(7)
    again = Experiment.prepare(words)
    _ = again.texts
    assert torch.equal(again.model.classifier.weight, first.classifier.weight)
