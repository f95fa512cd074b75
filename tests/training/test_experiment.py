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


def test_documents_of_like_length_are_evaluated_together_and_answered_in_their_own_order(words, monkeypatch):
    experiment = Experiment.prepare([*words, "--eval_batch_size=5"])
    widths, answer = [], experiment.kind.answer

    def seen(model, batch, new_tokens=None):
        widths.append(batch["input_ids"].shape[1])
        return answer(model, batch)

    monkeypatch.setattr(experiment.kind, "answer", seen)
    found = evaluate(experiment, "test", "test").answers
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    alone = [answer(experiment.model, experiment.collate([row]))[0] for row in experiment.encoded["test"]]
    torch.testing.assert_close(torch.from_numpy(found), torch.stack(alone), rtol=1e-4, atol=1e-5)
