"""Validation while a run trains: its loss beside the training's, and looks at a few documents in a short run."""

import json

import pytest
import run_files
import torch
from torch.nn.functional import cross_entropy

from shtopk.training import Experiment, Run, parse
from shtopk.training.batches import items_of
from shtopk.training.history import read_history
from shtopk.training.snapshot import load_weights
from shtopk.training.validation import Probe, validation_loss


def rows_with(run, name):
    return {row["update"]: row for row in read_history(run / "history.jsonl") if name in row}


@pytest.fixture
def run(words, trained):
    return trained([*words, "--epochs", "3", "--profile", "2", "--seed", "5"])


def test_a_short_run_shows_at_least_five_points_and_picks_its_best_by_evaluations_alone(run):
    evaluated, probed = rows_with(run, "eval_loss"), rows_with(run, "probe_loss")
    assert list(evaluated) == [6, 12, 18]
    assert list(probed) == [4, 8, 16]
    assert all(row["probe_documents"] == 6 and 0 <= row["probe_accuracy"] <= 1 for row in probed.values())
    results = json.loads((run / "all_results.json").read_text())
    assert results["best_update"] in evaluated


def test_looking_changes_nothing(run, words, trained):
    without = trained([*words, "--epochs", "3", "--seed", "5", "--probe_documents", "0"])
    assert rows_with(without, "probe_loss") == {}
    assert (without / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    kept = [row for row in run_files.course(run) if "probe_loss" not in row]
    assert run_files.course(without) == kept


def test_the_loss_of_classes_is_that_of_every_document(run, words):
    experiment = Experiment.prepare([*words, "--seed", "5"])
    load_weights(experiment.model, run / "checkpoints" / "update_18")
    rows = [experiment.encoded["validation"][i] for i in range(6)]
    with torch.no_grad():
        logits = torch.cat([experiment.model.eval()(**experiment.collate([row])).logits for row in rows])
    expected = cross_entropy(logits, torch.tensor([row["labels"] for row in rows])).item()
    assert rows_with(run, "eval_loss")[18]["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_summaries_is_the_mean_over_their_tokens(summary_words):
    run = Run(parse([*summary_words, "--eval_batch_size", "4", "--epochs", "2"]))
    batch = run.collate([run.encoded["validation"][i] for i in range(6)])
    with torch.no_grad():
        expected = run.model.eval()(**batch).loss.item()
    assert items_of(batch["labels"]) > 6
    assert validation_loss(run, []) == pytest.approx(expected, rel=1e-5)
    assert Probe(run).measure() == {"probe_loss": pytest.approx(expected, rel=1e-5), "probe_documents": 6}
