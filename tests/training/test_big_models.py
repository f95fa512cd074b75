"""Fields for models and documents that are large: they save memory or time, and change nothing that is learnt."""

import pytest
import torch
from run_files import course
from torch._dynamo.testing import CompileCounter

import train
from shtopk.training import Run, parse
from shtopk.training.batches import UpdateBatches
from shtopk.training.compiling import uncompiled

SHORT = ["--epochs", "1", "--backbone_dropout", "0.1"]


def test_gradient_checkpointing_and_workers_learn_the_same(words, trained):
    layers = [*words, *SHORT, "--k_by_layer", "1:8"]
    usual = trained(layers)
    other = trained([*layers, "--gradient_checkpointing", "true", "--workers", "1"])
    assert (other / "model.safetensors").read_bytes() == (usual / "model.safetensors").read_bytes()


def test_layers_compute_again_what_they_did_not_keep(words):
    run = Run(parse([*words, "--gradient_checkpointing", "true"]))
    calls = []
    run.model.encoder.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    run.model.train()(input_ids=torch.ones(2, 9, dtype=torch.long), labels=torch.tensor([0, 1])).loss.backward()
    assert len(calls) == 2


def test_max_steps_takes_the_place_of_epochs(words):
    results = train.main([*words, "--max_steps", "8"])
    assert (results["updates"], results["epochs"]) == (8, pytest.approx(8 / 6))


def test_half_precision_pads_to_multiples_of_8(words):
    widths = {}
    for precision in ("no", "bf16"):
        run = Run(parse([*words, "--mixed_precision", precision]))
        batches = UpdateBatches(run.encoded["train"], run.collate, batch_size=2).starting_at(0)
        widths[precision] = [next(batches)[0].inputs["input_ids"].shape[1] for _ in range(6)]
    assert widths["bf16"] == [-(-width // 8) * 8 for width in widths["no"]] != widths["no"]


def test_a_compiled_encoder_learns_the_same_and_is_compiled_once_for_all_lengths(
    words, trained, monkeypatch, tmp_path
):
    counter, compile_module = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend=counter, **options)
    )
    torch._dynamo.reset()
    train.main([*words, *SHORT, "--windows_at_once", "32", "--torch_compile", "true"])
    assert 1 <= counter.frame_count <= 2  # of the first batches; not of evaluations
    usual = [row["loss"] for row in course(trained([*words, *SHORT])) if "loss" in row]
    assert [row["loss"] for row in course(tmp_path / "run") if "loss" in row] == pytest.approx(usual, rel=0.2)
    with uncompiled():
        assert torch.compile(lambda x: x + 1, backend=counter)(torch.ones(1)) == 2
    assert counter.frame_count <= 2
