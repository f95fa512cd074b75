"""Two processes do what one does: the same losses, the same answers, every document once, one voice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from refusals import assert_refused
from safetensors.torch import load_file

import train

ROOT = Path(__file__).resolve().parents[2]
STILL = [
    "--classifier_dropout",
    "0",
    "--epochs",
    "3",
    "--eval_batch_size",
    "5",
]  # dropout differs from process to process
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def on_two_processes(words, output, *, fsdp=False, check=True):
    """Start train.py on two real processes; what torchrun wrote, and the outputs of both."""
    script = ROOT / ("tests/helpers/fsdp_on_cpu.py" if fsdp else "train.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
               "--rdzv_endpoint", "localhost:0", "--redirects", "3", "--log-dir", str(output) + "-logs",
               str(script), *words, "--output_dir", str(output)]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"} | (FSDP if fsdp else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    logs = sorted(Path(str(output) + "-logs").rglob("std*.log"))
    said = [[log.read_text() for log in logs if log.parent.name == rank] for rank in "01"]
    if check:
        assert done.returncode == 0, said
        assert json.loads((output / "run.json").read_text())["processes"] == 2
        assert json.loads((output / "run.json").read_text())["distributed"] == ("FSDP" if fsdp else "MULTI_CPU")
    return done, said


def history(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def same_course(run, other):
    """The losses, the gradients' norms and all metrics of two runs agree, but for the order of additions."""
    assert len(history(run)) == len(history(other))
    for its, others in zip(history(run), history(other), strict=True):
        assert its.keys() == others.keys()
        for name in its.keys() - {"selection_entropy", "peak_memory_gib"}:  # of the first process's documents
            if not name.endswith(("seconds", "_per_second", "runtime")):
                # Measured: up to 5e-6 after 9 updates of Adam, in float32
                assert its[name] == pytest.approx(others[name], rel=5e-5, abs=1e-7), name
    results, others = (json.loads((folder / "all_results.json").read_text()) for folder in (run, other))
    for name in results:
        if name.startswith("test_") and not name.endswith(("runtime", "_per_second")):
            assert results[name] == pytest.approx(others[name], rel=1e-6), name


@pytest.fixture
def alone(words, trained):
    return lambda *more, base=words: trained([*base, *STILL, "--batch_size", "16", *more])


@pytest.mark.slow
def test_two_processes_learn_as_one_and_one_of_them_speaks(words, alone, tmp_path):
    layers = ["--k_by_layer", "1:8"]
    done, said = on_two_processes([*words, *STILL, *layers], tmp_path / "two")
    same_course(tmp_path / "two", alone(*layers))
    results = json.loads((tmp_path / "two" / "all_results.json").read_text())
    assert (results["eval_documents"], results["test_documents"]) == (6, 12)  # neither divides by 2 x 5
    assert len((tmp_path / "two" / "predictions.jsonl").read_text().splitlines()) == 12
    assert "train: 100%" in said[0][0] and "see " in said[0][1]
    assert said[1] == ["", ""]


@pytest.mark.slow
def test_two_processes_summarize_as_one(summary_words, alone, tmp_path):
    words = [*summary_words, *STILL]
    on_two_processes(words, tmp_path / "two")
    same_course(tmp_path / "two", alone(base=summary_words))
    assert len((tmp_path / "two" / "predictions.jsonl").read_text().splitlines()) == 12


@pytest.mark.slow
def test_micro_batches_learn_as_one(summary_words, alone, tmp_path):
    few = ["--batch_size", "4", "--accumulation", "4", "--output_dir", str(tmp_path / "few")]
    train.main([*summary_words, *STILL, *few])
    same_course(tmp_path / "few", alone(base=summary_words))


@pytest.mark.slow
def test_a_scorer_without_gradient_does_not_stop_data_parallelism(words, tmp_path):
    layers = ["--k_by_layer", "1:8", "--operator", "hard", "--epochs", "1"]
    on_two_processes([*words, *layers], tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "summaries"])
def test_a_model_that_is_shared_out_learns_as_one_and_one_process_goes_on(words, summary_words, alone, tmp_path, kind):
    base = words if kind == "classes" else summary_words
    two = tmp_path / "two"
    on_two_processes([*base, *STILL, "--show", "1"], two, fsdp=True)
    assert (two / "document_0.html").stat().st_size > 1000
    same_course(two, alone(base=base))
    weights = load_file(two / "checkpoints" / "update_9" / "model.safetensors")
    expected = load_file(alone(base=base) / "checkpoints" / "update_9" / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-3, atol=1e-3)  # 2e-4 seen, of Adam's signs
    on = ["--resume", str(two / "checkpoints" / "update_6"), "--output_dir", str(tmp_path / "on")]
    train.main([*base, *STILL, "--batch_size", "16", *on])
    same_course(tmp_path / "on", two)


@pytest.mark.slow
def test_all_processes_end_with_one_line_where_the_arguments_cannot_be(words, tmp_path):
    done, said = on_two_processes([*words, "--k", "0"], tmp_path / "two", check=False)
    assert done.returncode != 0
    assert_refused(said[0][0].strip(), "k")
    assert said[1] == ["", ""]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.use_cpu is False
    assert (config.distributed_type.value == "FSDP") == (path.stem == "fsdp") == bool(config.fsdp_config)


def launch(name, words, *options):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"configs/accelerate/{name}.yaml",
               *options, "train.py", *words]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_accelerate_launches_a_single_process(words, tmp_path):
    launch("single", [*words, "--epochs", "1"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: Accelerate shares nothing out on a CPU")
@pytest.mark.parametrize("name", ["multi_gpu", "fsdp"])
def test_accelerate_launches_on_gpus(name, words, tmp_path):
    launch(name, [*words, "--epochs", "1"], "--num_processes", "2")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
