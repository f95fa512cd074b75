"""A run that was stopped, killed or went wrong: it goes on as if nothing had been, and says what to do."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import run_files
import torch
from filelock import FileLock
from refusals import assert_refused
from safetensors.torch import load_file
from transformers import PreTrainedModel

import train
from shtopk import TopKPooling, draw_k
from shtopk.training import experiment, loop, results
from shtopk.training.checkpoints import Checkpoints, sizes_and_hashes
from shtopk.training.run_folder import note

ROOT = Path(__file__).resolve().parents[2]
LATEST = ["--resume", "latest"]


def outcome(run):
    """The weights, and every figure that is no time."""
    return (run / "model.safetensors").read_bytes(), run_files.results(run), run_files.course(run)


@pytest.fixture
def harder(words):
    """With dropout, two poolings, accumulation, and checkpoints that are not where evaluations are."""
    return [*words, "--epochs", "8", "--k_by_layer", "1:8", "--batch_size", "4", "--save_every", "4",
            "--accumulation", "2", "--backbone_dropout", "0.1", "--warmup", "0.3"]  # fmt: skip


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process one signal, where a run with so many updates, or any, comes to a function of this module."""

    def arrange(update, number, module=loop, name="train_step"):
        original, signals = getattr(module, name), [number]

        def signalled(run, *arguments):
            if signals and (update is None or run.progress.update == update):
                os.kill(os.getpid(), signals.pop())
            return original(run, *arguments)

        monkeypatch.setattr(module, name, signalled)

    return arrange


@pytest.fixture
def stopped(last_line):
    """Run train.py until it stops with this exit code; the last line it says."""
    return lambda words, code: last_line(train.main, words, code=code)


@pytest.mark.parametrize("kind", [pytest.param("classes", marks=pytest.mark.slow), "summaries", "completions"])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    harder, summary_words, prompt_words, trained, stop_at, stopped, tmp_path, kind
):
    summarizing = [*summary_words, "--epochs", "6", "--classifier_dropout", "0.2", "--show", "1"]
    completing = [*prompt_words, "--epochs", "2", "--k_range", "3:9", "--backbone_dropout", "0.1", "--lora_r", "2"]
    words = {"classes": harder, "summaries": summarizing, "completions": completing}[kind]
    stop_at(7, signal.SIGTERM)
    said = stopped(words, 143)
    assert_refused(said, "SIGTERM", "update 8", "python train.py --train_file")
    assert said.endswith("--resume latest")
    stop_at(20, signal.SIGINT)
    assert stopped([*words, *LATEST], 130)
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).updates()[-1] == 21
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == outcome(trained(words))


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


def test_a_run_that_is_resumed_draws_the_k_that_it_would_have_drawn(words, trained, stop_at, stopped, tmp_path):
    words = [*words, "--epochs", "2", "--k_range", "3:30"]
    stop_at(5, signal.SIGTERM)
    assert stopped(words, 143)
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == outcome(trained(words))
    drawn = [row["k"] for row in run_files.course(tmp_path / "run") if "k" in row]
    assert drawn == [draw_k(TopKPooling(8, 4), (3, 30), update) for update in range(12)]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["k"] == 4


def test_an_evaluation_that_is_stopped_is_made_after_all(harder, trained, stop_at, stopped, tmp_path):
    stop_at(12, signal.SIGTERM, name="evaluate")
    assert stopped(harder, 143)
    state = json.loads((tmp_path / "run" / "checkpoints" / "update_12" / "state.json").read_text())
    assert (state["progress"]["update"], state["progress"]["evaluated"]) == (12, 6)
    train.main([*harder, *LATEST])
    assert outcome(tmp_path / "run") == outcome(trained(harder))


def test_patience_ends_a_run_before_its_last_epoch_and_counts_on(words, trained, stop_at, stopped, tmp_path):
    words = [*words, "--learning_rate", "1e-9", "--head_learning_rate", "1e-9", "--scorer_learning_rate", "1e-9",
             "--patience", "2"]  # fmt: skip
    whole = trained(words)
    assert run_files.results(whole).items() >= {"updates": 3 * 6, "best_update": 6}.items()
    stop_at(13, signal.SIGINT)
    assert stopped(words, 130)
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_run_that_is_done_is_tested_once_more(words, trained_here):
    run = trained_here([*words, "--epochs", "2"])
    before = outcome(run)
    for name in ("all_results.json", "model.safetensors"):
        (run / name).unlink()
    train.main([*words, "--epochs", "2", *LATEST])
    assert outcome(run) == before


def test_latest_starts_from_the_beginning_where_there_is_none(words, capsys):
    assert train.main([*words, "--epochs", "1", *LATEST])["updates"] == 6
    assert "no checkpoint in" in capsys.readouterr().err


def test_a_folder_without_a_run_is_not_gone_on_with(words, refusal, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "README.md").write_text("mine")
    assert_refused(refusal(*LATEST, base=words), "holds other files, and no run to go on with")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["README.md"]


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_finished_run_is_not_mixed_with_one_that_does_not_go_on_from_it(
    from_elsewhere, words, trained_here, refusal, tmp_path
):
    words = [*words, "--epochs", "1"]
    run = trained_here(words)
    elsewhere = shutil.copytree(run / "checkpoints", tmp_path / "elsewhere" / "checkpoints")
    shutil.rmtree(run / "checkpoints")
    resume = ["--resume", elsewhere / "update_6"] if from_elsewhere else LATEST
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert_refused(refusal(*resume, base=words), "holds a finished run", "--overwrite true")
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    (run / "all_results.json").unlink()  # it was stopped
    note(run, "document_0.html")
    (run / "document_0.html").touch()
    train.main([*words, *map(str, resume)])
    assert not (run / "document_0.html").exists()


def test_other_arguments_or_data_are_refused_in_one_line(refusal, words, trained_here, tmp_path):
    words = [*words, "--epochs", "1"]
    checkpoint = trained_here(words) / "checkpoints" / "update_6"
    assert_refused(refusal("--k", 5, *LATEST, base=words), "k was 4 and is 5")
    assert_refused(refusal("--batch_size", 16, *LATEST, base=words), "documents per update was 8 and is 16")
    other = tmp_path / "other.jsonl"
    other.write_text(Path(words[1]).read_text().replace("goal", "match"))
    assert_refused(refusal("--train_file", other, *LATEST, base=words), "data", "train")
    (checkpoint / "model.safetensors").write_bytes(b"x")
    assert_refused(refusal("--resume", checkpoint, base=words), "model.safetensors", "damaged")


def test_what_is_refused_leaves_the_other_run_as_it_is(refusal, words, trained_here):
    run = trained_here([*words, "--epochs", "2"])
    words = [*words, "--epochs", "2", "--eval_batch_size", "3"]
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refusal("--resume", run / "checkpoints" / "update_6", base=words)
    assert_refused(line, "other checkpoints", "--overwrite")
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_goes_on_with_fewer_windows_at_once_and_learns_the_same(words, trained, stop_at, stopped, tmp_path):
    words = [*words, "--epochs", "2", "--window", "16"]
    stop_at(8, signal.SIGTERM)
    assert stopped(words, 143)
    state = tmp_path / "run" / "checkpoints" / "update_9" / "state.json"
    assert "windows_at_once" not in json.loads(state.read_text())["identity"]
    train.main([*words, *LATEST, "--windows_at_once", "2"])
    found, expected = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained(words)))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("what", "update"), [("loss", 9), ("gradient's norm", 7)])
def test_what_is_no_number_stops_the_run_and_names_the_last_checkpoint(
    words, stopped, tmp_path, monkeypatch, what, update
):
    build = experiment.build_model

    def poisoned(*arguments):
        model = build(*arguments)

        def spoil(tensor):
            return tensor * float("nan") if model.pooling.progress >= (update - 1) / 71 else tensor  # of 72 updates

        def spoil_loss(module, inputs, output):
            output.loss = spoil(output.loss)

        if what == "loss":
            model.register_forward_hook(spoil_loss)
        else:
            model.classifier.weight.register_hook(spoil)
        return model

    monkeypatch.setattr(experiment, "build_model", poisoned)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert_refused(stopped(words, 1), what, f"update {update}", "nan", checkpoints / "update_6")
    assert Checkpoints(checkpoints, 2).latest().name == "update_6"


def test_another_run_is_kept_out_of_the_folder(words, refusal, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert_refused(refusal(*LATEST), "another run", tmp_path / "run")
    train.main([*words, "--epochs", "1", *LATEST])


def test_sigterm_while_the_best_is_tested_says_how_to_go_on(words, trained, stop_at, stopped, tmp_path):
    words = [*words, "--epochs", "2"]
    stop_at(None, signal.SIGTERM, results, "publish")
    said = stopped([*words, *LATEST], 143)
    assert_refused(said, "after training", "python train.py")
    assert said.count("latest") == 1
    train.main([*words, *LATEST])
    assert outcome(tmp_path / "run") == outcome(trained(words))


def test_a_second_signal_says_that_updates_are_lost(words, stop_at, stopped):
    words = [*words, "--epochs", "2"]
    stop_at(8, signal.SIGINT)
    stop_at(9, signal.SIGINT, loop, "save")  # while the first is obeyed
    assert_refused(stopped(words, 130), "after update 9", "last checkpoint are lost", "--resume latest")


def test_going_on_elsewhere_takes_the_history_along(words, trained, stop_at, stopped, tmp_path):
    words = [*words, "--epochs", "2"]
    stop_at(8, signal.SIGINT)
    assert stopped(words, 130)
    source = tmp_path / "run" / "checkpoints" / "update_9"
    train.main([*words, "--output_dir", str(tmp_path / "elsewhere"), "--resume", str(source)])
    assert outcome(tmp_path / "elsewhere") == outcome(trained(words))


@pytest.mark.parametrize("state", ["[]", "{}", '{"progress": {"update": 3, "more": 1}, "identity": {}}'])
def test_a_checkpoint_of_another_version_is_refused(refusal, words, trained_here, state, monkeypatch):
    monkeypatch.setattr("shtopk.training.provenance.Provenance.differences", lambda provenance, identity: "")
    checkpoint = trained_here([*words, "--epochs", "1"]) / "checkpoints" / "update_6"
    rewrite(checkpoint, state)
    assert_refused(refusal("--epochs", 1, *LATEST), checkpoint, "version")


def rewrite(checkpoint, state):
    """Give a checkpoint another state, and the manifest that goes with it."""
    (checkpoint / "state.json").write_text(state)
    manifest = {"needs": [], "files": sizes_and_hashes(checkpoint)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_model_of_any_size_is_one_file_to_go_on_from(words, trained_here, monkeypatch):
    saves = PreTrainedModel.save_pretrained
    smaller = tuple("10KB" if value == "50GB" else value for value in saves.__defaults__)
    monkeypatch.setattr(saves, "__defaults__", smaller)  # at which transformers begins another file
    trained_here([*words, "--epochs", "1"])
    assert train.main([*words, "--epochs", "1", *LATEST])["updates"] == 6


def test_a_field_that_was_compared_once_and_is_free_now_keeps_nobody_from_going_on(words, trained_here):
    checkpoint = trained_here([*words, "--epochs", "1"]) / "checkpoints" / "update_6"
    state = json.loads((checkpoint / "state.json").read_text())
    state["identity"]["windows_at_once"] = 16
    rewrite(checkpoint, json.dumps(state))
    assert train.main([*words, "--epochs", "1", *LATEST])["updates"] == 6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_ends_the_run_in_one_line(words, tmp_path):
    """No file may grow beyond 50 KB, as if the disk ran full; the model's is larger."""
    limit = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
             "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000)); import train; train.main()")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", limit, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert_refused(last, "checkpoint of update 6", "none before it")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_disk_that_fills_between_checkpoints_ends_the_run_in_one_line(words, stopped, monkeypatch):
    def run_out(history, update, measured):
        if update == 8:
            raise OSError(errno.ENOSPC, "No space left on device", "history.jsonl")

    monkeypatch.setattr(loop.History, "add", run_out)
    assert_refused(stopped(words, 1), "No space left on device", "history.jsonl", "python train.py")


def test_no_file_of_a_checkpoint_is_a_pickle(words, trained):
    for path in trained([*words, "--epochs", "1"]).rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert path.suffix in {".safetensors", ".json", ".jsonl", ".py", ".md", ".yaml", ".png"}, path
