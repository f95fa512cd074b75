"""LoRA from the command line: what is trained, what is saved, and that nobody who uses the model has to know."""

import json
import os
import shutil
import signal

import pytest
import run_files
import torch
from refusals import assert_refused
from safetensors.torch import load_file, save_file

import train
from shtopk.commands import main
from shtopk.models import TopKPoolingForSequenceClassification, load_checkpoint
from shtopk.training import Run, loop, parse
from shtopk.training.build import trained_parts
from shtopk.training.lora import merged
from shtopk.training.snapshot import load_weights

pytest.importorskip("peft")
LORA = ["--lora_r", "4", "--epochs", "2", "--lora_learning_rate", "1e-2", "--lora_dropout", "0.1"]


@pytest.fixture
def run(words, trained):
    return trained([*words, *LORA])


def test_the_layers_stay_and_matrices_scorer_and_head_are_trained(run, words):
    before = TopKPoolingForSequenceClassification.from_backbone(words[3], num_labels=2, k=4).state_dict()
    after = load_file(run / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    adapted = {name for name in changed if name.startswith("backbone.")}
    assert adapted and all(".query.weight" in name or ".value.weight" in name for name in adapted)
    apart = load_file(run / "checkpoints" / "update_12" / "trained.safetensors")
    whole = {name for name in apart if ".lora_" not in name}
    assert whole == {"classifier.weight", "classifier.bias", "pooling.scorer.weight", "pooling.scorer.bias"}
    results = json.loads((run / "all_results.json").read_text())
    assert results["trained_parameters"] == sum(weight.numel() for weight in apart.values())
    assert results["test_accuracy"] > 0.8


def test_the_saved_model_answers_as_the_trained_one(run, words):
    experiment = Run(parse([*words, *LORA, "--output_dir", str(run / "other")]))
    load_weights(experiment.model, run / "checkpoints" / "update_12")
    batch = experiment.collate([experiment.encoded["test"][i] for i in range(4)])
    del batch["labels"]
    saved, _ = load_checkpoint(run / "checkpoints" / "update_12")
    with torch.no_grad():
        expected = experiment.model.eval()(**batch).logits
        torch.testing.assert_close(saved(**batch).logits, expected, rtol=1e-4, atol=1e-6)
    plain = merged(experiment.model, dict(experiment.model.state_dict()))
    assert plain.keys() == saved.state_dict().keys()


def test_commands_take_it_as_any_model(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--output_dir", str(tmp_path / "figures")]) == 0
    figures = json.loads((tmp_path / "figures" / "results.json").read_text())["metrics"]
    assert figures["accuracy"] == run_files.results(run)["test_accuracy"]


def test_a_stopped_run_goes_on_to_the_same_bits(run, words, monkeypatch, tmp_path):
    step, signals = loop.train_step, [signal.SIGTERM]

    def until(run, *arguments):
        if signals and run.progress.update == 8:
            os.kill(os.getpid(), signals.pop())
        return step(run, *arguments)

    monkeypatch.setattr(loop, "train_step", until)
    with pytest.raises(SystemExit):
        train.main([*words, *LORA])
    train.main([*words, *LORA, "--resume", "latest"])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert run_files.course(tmp_path / "run") == run_files.course(run)


@pytest.mark.parametrize("changed", ["query.weight", "word_embeddings.weight"])
def test_a_run_over_a_backbone_with_other_weights_by_now_does_not_go_on(changed, encoder, words, refusal, tmp_path):
    backbone = shutil.copytree(encoder, tmp_path / "encoder")
    words = [*words, *LORA, "--backbone", str(backbone), "--epochs", "1"]
    train.main(words)
    weights = load_file(backbone / "model.safetensors")
    name = next(name for name in weights if name.endswith(changed))
    save_file(weights | {name: weights[name] + 1e-3}, backbone / "model.safetensors", {"format": "pt"})
    assert_refused(refusal("--resume", "latest", base=words), "update_6", "backbone")


def test_new_parts_of_a_summarizer_and_poolings_between_layers_are_trained_in_full(summary_words):
    words = [*summary_words, "--lora_r", "2", "--lora_targets", "query,dense", "--k_by_layer", "1:8",
             "--freeze_layers", "1"]  # fmt: skip
    model = Run(parse(words)).model
    parts = {part: len(parameters) for part, parameters in trained_parts(model).items()}
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert parts["encoder"] == parts["decoder"] == 0
    assert parts["scorer"] == 4  # two linear scorers
    assert parts["new"] == len(model.new_parameters - {name for name in names if "scorer" in name})
    assert any(".lora_" in name for name in names)
    assert not any(name.startswith("backbone.encoder.") and ".layer.0." in name for name in names)
