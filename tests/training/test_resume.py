"""A run that was stopped, killed or went wrong: it goes on as if nothing had been, and says what to do."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from refusals import assert_refused

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


@pytest.mark.parametrize("kind", [pytest.param("classes", marks=pytest.mark.slow), "summaries"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    harder, summary_words, trained, stop_at, tmp_path, capsys, kind
):
    words = (
        harder
        if kind == "classes"
        else [*summary_words, "--epochs", "6", "--classifier_dropout", "0.2", "--show", "1"]
    )
    whole = outcome(trained(words))
    stop_at(7, signal.SIGTERM)
    assert stopped(words) == 143
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert_refused(said, "SIGTERM", "update 8", "python train.py --train_file")
    assert said.endswith("--resume latest")
    stop_at(20, signal.SIGINT)
    assert stopped([*words, *LATEST]) == 130
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).updates()[-1] == 21
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == whole


KILLED_AT = """
import os, pathlib, signal, sys, train
from shtopk.training import loop
kind, number = sys.argv[1:3]
of = pathlib.Path if hasattr(pathlib.Path, kind) else os if hasattr(os, kind) else loop
call = getattr(of, kind)
calls = iter(range(1, int(number)))
def until(*arguments, **options):
    next(calls, None) or os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **options)
setattr(of, kind, until)
train.main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("points", [
    (("rename", 3), ("train_step", 20)),  # as the third checkpoint gets its name, and between two of them
    (("fsync", 1), ("replace", 2)),  # while the first one is written, and as the result is published
], ids=str)  # fmt: skip
def test_a_run_that_is_killed_goes_on_to_the_same_bits(harder, trained, tmp_path, points):
    whole = outcome(trained(harder))
    for kind, number in points:  # at this call of that function
        command = [sys.executable, "-c", KILLED_AT, kind, str(number), *harder, *LATEST]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (kind, number, done.stderr)
    train.main([*harder, *LATEST])
    assert outcome(tmp_path / "run") == whole, points


def test_an_evaluation_that_is_stopped_is_made_after_all(harder, trained, tmp_path, monkeypatch):
    whole = outcome(trained(harder))
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
    assert outcome(tmp_path / "run") == whole


def test_patience_counts_on(words, stop_at, tmp_path):
    words = [*words, "--learning_rate", "1e-9", "--head_learning_rate", "1e-9", "--scorer_learning_rate", "1e-9",
             "--patience", "2"]  # fmt: skip
    stop_at(13, signal.SIGINT)
    assert stopped(words) == 130
    results = train.main([*words, *LATEST])
    assert (results["updates"], results["best_update"]) == (3 * 6, 6)


def test_a_run_that_is_done_is_tested_once_more(words, trained_here):
    run = trained_here([*words, "--epochs", "2"])
    before = outcome(run)
    for name in ("all_results.json", "model.safetensors"):
        (run / name).unlink()
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(run) == before


def test_latest_starts_from_the_beginning_where_there_is_none(words, tmp_path, capsys):
    results = train.main([*words, "--epochs", "1", *LATEST])
    assert results["updates"] == 6
    assert "no checkpoint in" in capsys.readouterr().err


def test_other_arguments_or_data_are_refused_in_one_line(refusal, words, trained_here, tmp_path):
    run = trained_here([*words, "--epochs", "1"])
    assert_refused(refusal("--epochs", 1, "--k", 5, *LATEST), "k was 4 and is 5")
    assert_refused(refusal("--epochs", 1, "--batch_size", 16, *LATEST), "documents per update was 8 and is 16")
    data = Path(words[1])
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("goal", "match"))
    assert_refused(refusal("--epochs", 1, "--train_file", other, *LATEST), "data", "train")
    checkpoint = run / "checkpoints" / "update_6"
    (checkpoint / "model.safetensors").write_bytes(b"x")
    assert_refused(refusal("--epochs", 1, "--resume", checkpoint), "model.safetensors", "damaged")


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
    assert_refused(said, "loss", "update 9", "nan", tmp_path / "run" / "checkpoints" / "update_6")
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
    assert_refused(said, "gradient's norm", "update 7", "nan", tmp_path / "run" / "checkpoints" / "update_6")


def test_another_run_is_kept_out_of_the_folder(words, refusal, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert_refused(refusal(*LATEST), "another run", tmp_path / "run")
    train.main([*words, "--epochs", "1", *LATEST])


def test_sigterm_while_the_best_is_tested_says_how_to_go_on(words, trained, tmp_path, monkeypatch, capsys):
    whole = outcome(trained([*words, "--epochs", "2"]))
    publish = results.publish

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(results, "publish", signalled)
        assert stopped([*words, "--epochs", "2", *LATEST]) == 143
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert_refused(said, "after training", "python train.py")
    assert said.count("latest") == 1
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(tmp_path / "run") == whole


def test_going_on_elsewhere_takes_the_history_along(words, trained, stop_at, tmp_path):
    whole = outcome(trained([*words, "--epochs", "2"]))
    stop_at(8, signal.SIGINT)
    assert stopped([*words, "--epochs", "2"]) == 130
    source = tmp_path / "run" / "checkpoints" / "update_9"
    elsewhere = ["--output_dir", str(tmp_path / "elsewhere"), "--resume", str(source)]
    train.main([*words, "--epochs", "2", *elsewhere])
    assert outcome(tmp_path / "elsewhere") == whole


@pytest.mark.parametrize("state", ["[]", "{}", '{"progress": {"update": 3, "more": 1}, "identity": {}}'])
def test_a_checkpoint_of_another_version_is_refused(refusal, words, trained_here, state, monkeypatch):
    monkeypatch.setattr("shtopk.training.provenance.Provenance.differences", lambda provenance, identity: "")
    checkpoint = trained_here([*words, "--epochs", "1"]) / "checkpoints" / "update_6"
    (checkpoint / "state.json").write_text(state)
    manifest = {"needs": [], "files": sizes_and_hashes(checkpoint)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert_refused(refusal("--epochs", 1, *LATEST), checkpoint, "version")


@pytest.mark.slow
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
    assert_refused(last, "checkpoint of update 6", "none before it")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_disk_that_fills_between_checkpoints_ends_the_run_in_one_line(words, monkeypatch, capsys):
    def run_out(history, update, measured):
        if update == 8:
            raise OSError(errno.ENOSPC, "No space left on device", "history.jsonl")

    monkeypatch.setattr(loop.History, "add", run_out)
    assert stopped(words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert_refused(said, "No space left on device", "history.jsonl", "python train.py")


def test_no_file_of_a_checkpoint_is_a_pickle(words, trained):
    for path in trained([*words, "--epochs", "1"]).rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert path.suffix in {".safetensors", ".json", ".jsonl", ".py", ".md", ".yaml", ".png"}, path
