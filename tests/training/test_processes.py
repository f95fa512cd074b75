"""Two processes do what one does: the same losses, the same answers, every document once, one voice."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from refusals import assert_refused
from run_files import course, results, rows_of
from safetensors.torch import load_file
from torch.distributed import TCPStore

import train
from shtopk.training import one_line_at_the_end

ROOT = Path(__file__).resolve().parents[2]
# Without dropout, which differs from process to process
STILL = ["--classifier_dropout", "0", "--epochs", "3", "--eval_batch_size", "5"]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


AGAIN = {"FSDP_ACTIVATION_CHECKPOINTING": "true"}  # what the layers make is computed again in the backward pass


def on_two_processes(words, output, *, fsdp=False, check=True, more=()):
    """Start train.py on two real processes; what torchrun wrote, and the outputs of both."""
    script = ROOT / ("tests/helpers/fsdp_on_cpu.py" if fsdp else "train.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
               "--rdzv_endpoint", "localhost:0", "--redirects", "3", "--log-dir", str(output) + "-logs",
               str(script), *words, "--output_dir", str(output)]  # fmt: skip
    environment = (
        os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"} | (FSDP if fsdp else {}) | dict(more)
    )
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    logs = sorted(Path(str(output) + "-logs").rglob("std*.log"))
    said = [[log.read_text() for log in logs if log.parent.name == rank] for rank in "01"]
    if check:
        assert done.returncode == 0, said
        record = json.loads((output / "run.json").read_text())
        assert (record["processes"], record["distributed"]) == (2, "FSDP" if fsdp else "MULTI_CPU")
    return done, said


def same_course(run, other):
    """The losses, the gradients' norms and all metrics of two runs agree, but for the order of additions."""
    for its, others in zip(course(run), course(other), strict=True):
        for row in (its, others):
            row.pop("selection_entropy", None)  # of the first process's documents
        assert its == pytest.approx(others, rel=5e-5, abs=1e-7)  # measured: 5e-6 after 9 updates of Adam, in float32
    its, others = ({name: value for name, value in results(folder).items() if name.startswith("test_")}
                   for folder in (run, other))  # fmt: skip
    assert its == pytest.approx(others, rel=1e-6)


@pytest.fixture
def alone(words, trained):
    return lambda *more, base=words: trained([*base, *STILL, "--batch_size", "16", *more])


@pytest.fixture(params=["classes", "summaries"])
def base(request, words, summary_words):
    return words if request.param == "classes" else summary_words


@pytest.mark.slow
def test_two_processes_learn_as_one_and_one_of_them_speaks(base, words, alone, tmp_path):
    layers = ["--k_by_layer", "1:8"] if base == words else []
    done, said = on_two_processes([*base, *STILL, *layers], tmp_path / "two")
    same_course(tmp_path / "two", alone(*layers, base=base))
    documents = results(tmp_path / "two")
    assert (documents["eval_documents"], documents["test_documents"]) == (6, 12)  # neither divides by 2 x 5
    said_by = [rows_of(run / "predictions.jsonl") for run in (tmp_path / "two", alone(*layers, base=base))]
    assert [row["row"] for row in said_by[0]] == list(range(12))
    for its, other in zip(*said_by, strict=True):
        assert its == pytest.approx(other, abs=1e-5)
    assert "train: 100%" in said[0][0] and "see " in said[0][1]
    assert said[1] == ["", ""]


@pytest.mark.slow
def test_two_processes_draw_the_same_k(words, alone, tmp_path):
    on_two_processes([*words, *STILL, "--k_range", "3:30"], tmp_path / "two")
    same_course(tmp_path / "two", alone("--k_range", "3:30"))
    assert len({row["k"] for row in course(tmp_path / "two") if "k" in row}) > 3


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
def test_a_model_that_is_shared_out_learns_as_one_and_one_process_goes_on(base, alone, tmp_path):
    two = tmp_path / "two"
    on_two_processes([*base, *STILL, "--show", "1"], two, fsdp=True)
    assert (two / "document_0.html").stat().st_size > 1000
    same_course(two, alone(base=base))
    weights, expected = (load_file(folder / "checkpoints" / "update_9" / "model.safetensors")
                         for folder in (two, alone(base=base)))  # fmt: skip
    for either in (weights, expected):
        del either["pooling.scorer.bias"]  # it moves all scores alike: its gradient is rounding, which Adam enlarges
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-3)  # 2e-4 seen, of Adam's signs
    on = ["--resume", str(two / "checkpoints" / "update_6"), "--output_dir", str(tmp_path / "on")]
    train.main([*base, *STILL, "--batch_size", "16", *on])
    same_course(tmp_path / "on", two)


@pytest.mark.slow
def test_a_model_that_is_shared_out_pools_between_layers_that_are_computed_again(words, alone, tmp_path):
    layers = ["--k_by_layer", "1:8"]
    on_two_processes([*words, *STILL, *layers], tmp_path / "two", fsdp=True, more=AGAIN)
    same_course(tmp_path / "two", alone(*layers, base=words))


@pytest.mark.slow
def test_all_processes_end_with_one_line_where_the_arguments_cannot_be(words, tmp_path):
    done, said = on_two_processes([*words, "--k", "0"], tmp_path / "two", check=False)
    assert done.returncode != 0
    (line,) = filter(None, (text.strip() for process in said for text in process))
    assert_refused(line, "k")


def test_whichever_process_fails_the_line_is_said_once(monkeypatch, capsys):
    store = TCPStore("localhost", 0, is_master=True)
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2",
               "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    for name, value in meeting.items():
        monkeypatch.setenv(name, value)
    for rank, said in (("1", "train.py: cannot read or write: No space left on device"), ("0", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit), one_line_at_the_end([], trains=False):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.use_cpu is False
    assert (config.distributed_type.value == "FSDP") == (path.stem == "fsdp") == bool(config.fsdp_config)


GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two: Accelerate shares nothing out on a CPU")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "processes"), [
    ("single", [], 1),
    pytest.param("multi_gpu", ["--num_processes", "2"], 2, marks=GPUS),
    pytest.param("fsdp", ["--num_processes", "2"], 2, marks=GPUS),
])  # fmt: skip
def test_accelerate_launches(name, options, processes, words, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"configs/accelerate/{name}.yaml",
               *options, "train.py", *words, "--epochs", "1"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == processes
