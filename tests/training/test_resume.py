"""A run that was stopped, killed or went wrong: it goes on as if nothing had been, and says what to do."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import train
from shtopk.training import experiment, loop, results
from shtopk.training.checkpoints import Checkpoints, sizes_and_hashes

ROOT = Path(__file__).resolve().parents[2]
LATEST = ["--resume", "latest"]


def outcome(run):
    """The weights, and every figure that is no time."""
    results = json.loads((run / "all_results.json").read_text())
    timeless = {
        name: value
        for name, value in results.items()
        if not name.endswith(("runtime", "_per_second")) and name not in ("command", "arguments")
    }
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    course = [
        {name: value for name, value in row.items()
         if not name.endswith(("seconds", "_per_second", "runtime")) and name != "peak_memory_gib"}
        for row in history
    ]  # fmt: skip
    return (run / "model.safetensors").read_bytes(), timeless, course


@pytest.fixture
def harder(words):
    """With dropout, two poolings, accumulation, and checkpoints that are not where evaluations are."""
    return [*words, "--epochs", "8", "--k_by_layer", "1:8", "--batch_size", "4", "--save_every", "4",
            "--accumulation", "2", "--backbone_dropout", "0.1", "--warmup", "0.3"]  # fmt: skip


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process a signal in the middle of an update, or of an evaluation after so many."""

    def arrange(update, number):
        original = loop.train_step

        def signalled(run, *arguments):
            if run.progress.update == update:
                os.kill(os.getpid(), number)
            return original(run, *arguments)

        monkeypatch.setattr(loop, "train_step", signalled)

    return arrange


def with_state(checkpoint, state):
    """Give a checkpoint another state.json, and the manifest that belongs to it."""
    (checkpoint / "state.json").write_text(state)
    manifest = {"needs": [], "files": sizes_and_hashes(checkpoint)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def stopped(words):
    with pytest.raises(SystemExit) as end:
        train.main(words)
    return end.value.code


@pytest.mark.parametrize("kind", ["classes", "summaries"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(harder, summary_words, stop_at, tmp_path, capsys, kind):
    words = (
        harder
        if kind == "classes"
        else [*summary_words, "--epochs", "6", "--classifier_dropout", "0.2", "--show", "1"]
    )
    train.main([*words, "--output_dir", str(tmp_path / "whole")])
    stop_at(7, signal.SIGTERM)
    assert stopped(words) == 143
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "train.py: stopped by SIGTERM after update 8; go on with: python train.py --train_file" in said
    assert said.endswith("--resume latest")
    stop_at(20, signal.SIGINT)
    assert stopped([*words, *LATEST]) == 130
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).updates()[-1] == 21
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_run_that_is_killed_goes_on_to_the_same_bits(harder, tmp_path):
    train.main([*harder, "--output_dir", str(tmp_path / "whole")])
    history = tmp_path / "run" / "history.jsonl"
    steps = random.Random().sample(range(2, 50), 2)  # 48 updates and 8 evaluations leave a line each
    for step in sorted(steps):
        process = subprocess.Popen([sys.executable, "train.py", *harder, *LATEST], cwd=ROOT, stderr=subprocess.DEVNULL,
                                   env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})  # fmt: skip
        while process.poll() is None and not (history.exists() and history.read_bytes().count(b"\n") >= step):
            time.sleep(0.002)
        process.kill()
        process.wait()
    train.main([*harder, *LATEST])
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole"), steps


def test_an_evaluation_that_is_stopped_is_made_after_all(harder, stop_at, tmp_path, monkeypatch):
    train.main([*harder, "--output_dir", str(tmp_path / "whole")])
    original = loop.evaluate

    def signalled(run, *arguments):
        if run.progress.update == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", signalled)
        assert stopped(harder) == 143
    state = json.loads((tmp_path / "run" / "checkpoints" / "update_12" / "state.json").read_text())
    assert (state["progress"]["update"], state["progress"]["evaluated"]) == (12, 6)
    train.main([*harder, *LATEST])
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_patience_counts_on(words, stop_at, tmp_path):
    words = [*words, "--learning_rate", "1e-9", "--head_learning_rate", "1e-9", "--scorer_learning_rate", "1e-9",
             "--patience", "2"]  # fmt: skip
    stop_at(13, signal.SIGINT)
    assert stopped(words) == 130
    results = train.main([*words, *LATEST])
    assert (results["updates"], results["best_update"]) == (3 * 6, 6)


def test_a_run_that_is_done_is_tested_once_more(words, tmp_path):
    train.main([*words, "--epochs", "2"])
    before = outcome(tmp_path / "run")
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(tmp_path / "run") == before


def test_latest_starts_from_the_beginning_where_there_is_none(words, tmp_path, capsys):
    results = train.main([*words, "--epochs", "1", *LATEST])
    assert results["updates"] == 6
    assert "no checkpoint in" in capsys.readouterr().err


def test_other_arguments_or_data_are_refused_in_one_line(refusal, words, tmp_path, capsys):
    train.main([*words, "--epochs", "1"])
    capsys.readouterr()
    assert "k was 4 and is 5" in refusal("--epochs", 1, "--k", 5, *LATEST)
    assert "documents per update was 8 and is 16" in refusal("--epochs", 1, "--batch_size", 16, *LATEST)
    data = Path(words[1])
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("goal", "match"))
    assert "data (train)" in refusal("--epochs", 1, "--train_file", other, *LATEST)
    checkpoint = tmp_path / "run" / "checkpoints" / "update_6"
    state = (checkpoint / "state.json").read_text()
    with_state(checkpoint, state.replace('"max_norm"', '"max_grad_norm"'))
    assert "another version of train.py, whose fields are others (max_grad_norm, max_norm)" in refusal(
        "--epochs", 1, *LATEST
    )
    (checkpoint / "model.safetensors").write_bytes(b"x")
    assert "model.safetensors is damaged" in refusal("--epochs", 1, "--resume", checkpoint)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_checkpoint(words, tmp_path, monkeypatch, capsys):
    build = experiment.build_model

    def poisoned(*arguments):
        model = build(*arguments)

        def spoil(module, inputs, output):
            if model.training and model.pooling.progress >= 8 / 71:  # from the ninth of 72 updates on
                output.loss = output.loss * float("nan")
            return output

        model.register_forward_hook(spoil)
        return model

    monkeypatch.setattr(experiment, "build_model", poisoned)
    assert stopped(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("train.py: the loss of update 9 is nan; the last checkpoint is ")
    assert str(tmp_path / "run" / "checkpoints" / "update_6") in said
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).latest().name == "update_6"


def test_a_gradient_that_is_no_number_stops_the_run_before_it_spoils_the_weights(words, tmp_path, monkeypatch, capsys):
    build = experiment.build_model

    def poisoned(*arguments):
        model = build(*arguments)
        weight = model.classifier.weight
        weight.register_hook(lambda g: g * float("nan") if model.pooling.progress >= 6 / 71 else g)
        return model

    monkeypatch.setattr(experiment, "build_model", poisoned)
    assert stopped(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("train.py: the gradient's norm of update 7 is nan; the last checkpoint is ")


def test_another_run_is_kept_out_of_the_folder(words, refusal, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert "another run writes into" in refusal(*LATEST)
    train.main([*words, "--epochs", "1", *LATEST])


def test_sigterm_while_the_best_is_tested_says_how_to_go_on(words, tmp_path, monkeypatch, capsys):
    train.main([*words, "--epochs", "2", "--output_dir", str(tmp_path / "whole")])
    publish = results.publish

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(results, "publish", signalled)
        assert stopped([*words, "--epochs", "2", *LATEST]) == 143
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "stopped after training; go on with: python train.py" in said and said.count("latest") == 1
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_going_on_elsewhere_takes_the_history_along(words, stop_at, tmp_path):
    stop_at(8, signal.SIGINT)
    assert stopped([*words, "--epochs", "2"]) == 130
    source = tmp_path / "run" / "checkpoints" / "update_9"
    elsewhere = ["--output_dir", str(tmp_path / "elsewhere"), "--resume", str(source)]
    train.main([*words, "--epochs", "2", *elsewhere])
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(tmp_path / "elsewhere") == outcome(tmp_path / "run")


@pytest.mark.parametrize("state", ["[]", "{}", '{"progress": {"update": 3, "more": 1}, "identity": {}}'])
def test_a_checkpoint_of_another_version_is_refused(refusal, words, tmp_path, capsys, state, monkeypatch):
    train.main([*words, "--epochs", "1"])
    capsys.readouterr()
    monkeypatch.setattr("shtopk.training.provenance.Provenance.differences", lambda provenance, identity: "")
    with_state(tmp_path / "run" / "checkpoints" / "update_6", state)
    assert "is not of this version of train.py" in refusal("--epochs", 1, *LATEST)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_ends_the_run_in_one_line(words, tmp_path):
    """No file may grow beyond 50 KB, as if the disk ran full; the model's is larger."""
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000)); import train; train.main()"
    )
    done = subprocess.run([sys.executable, "-c", limit, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("train.py: cannot write the checkpoint of update 6: ") and "there is none before it" in last
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_disk_that_fills_between_checkpoints_ends_the_run_in_one_line(words, monkeypatch, capsys):
    def run_out(history, update, measured):
        if update == 8:
            raise OSError(errno.ENOSPC, "No space left on device", "history.jsonl")

    monkeypatch.setattr(loop.History, "add", run_out)
    assert stopped(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("train.py: cannot read or write: No space left on device (history.jsonl); go on with: ")


def test_no_file_of_a_checkpoint_is_a_pickle(words, tmp_path):
    train.main([*words, "--epochs", "1"])
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert path.suffix in {".safetensors", ".json", ".jsonl", ".py", ".md", ".yaml", ".png"}, path
