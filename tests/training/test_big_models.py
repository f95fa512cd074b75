"""Fields for models and documents that are large: they save memory or time, and change nothing that is learnt."""

import pytest
import torch
from accelerate.state import AcceleratorState
from run_files import course, results
from torch._dynamo.testing import CompileCounter

import train
from shtopk.training import Run, parse
from shtopk.training.batches import UpdateBatches

SHORT = ["--max_steps", "4", "--backbone_dropout", "0.1"]


def test_gradient_checkpointing_learns_the_same(words, trained):
    layers = [*words, *SHORT, "--k_by_layer", "1:8"]
    usual = trained(layers)
    other = trained([*layers, "--gradient_checkpointing", "true"])
    assert (other / "model.safetensors").read_bytes() == (usual / "model.safetensors").read_bytes()


def test_layers_compute_again_what_they_did_not_keep(words):
    run = Run(parse([*words, "--gradient_checkpointing", "true"]))
    calls = []
    run.model.encoder.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    run.model.train()(input_ids=torch.ones(2, 9, dtype=torch.long), labels=torch.tensor([0, 1])).loss.backward()
    assert len(calls) == 2


def test_max_steps_takes_the_place_of_epochs(words, trained):
    done = results(trained([*words, *SHORT, "--k_by_layer", "1:8"]))
    assert (done["updates"], done["epochs"]) == (4, pytest.approx(4 / 6))


def test_a_gpu_in_half_precision_is_given_multiples_of_8(words, monkeypatch):
    widths = {}
    for precision, device in (("bf16", "cuda"), ("bf16", "cpu"), ("no", "cuda")):  # "no" last, as other tests have it
        AcceleratorState._reset_state(reset_partial_state=True)
        run = Run(parse([*words, "--mixed_precision", precision]))
        vars(run).pop("collate", None)
        with monkeypatch.context() as patch:
            patch.setattr(type(run.accelerator), "device", torch.device(device))
            collate = run.collate
        batches = UpdateBatches(run.encoded["train"], collate, batch_size=2).starting_at(0)
        widths[precision, device] = [next(batches)[0].inputs["input_ids"].shape[1] for _ in range(6)]
    assert widths["bf16", "cpu"] == widths["no", "cuda"]
    assert widths["bf16", "cuda"] == [-(-width // 8) * 8 for width in widths["no", "cuda"]] != widths["no", "cuda"]


@pytest.mark.slow
def test_an_encoder_is_compiled_once_for_all_lengths(words, trained, monkeypatch, tmp_path):
    counter, inner = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: inner(self, backend=counter, **options))
    torch._dynamo.reset()
    words = [*words, "--max_steps", "4"]
    train.main([*words, "--torch_compile", "true"])
    assert 1 <= counter.frame_count <= 2  # of the first batches; none of evaluations
    its, others = ([row["loss"] for row in course(run) if "loss" in row] for run in (tmp_path / "run", trained(words)))
    assert its == pytest.approx(others, rel=1e-4)
