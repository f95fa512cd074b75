"""What a run leaves besides its model: where it comes from, how it went, and a picture of that."""

import importlib.util
import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from refusals import assert_refused
from run_files import rows_of

import train
from shtopk.tasks.columns import Columns
from shtopk.training import loop, parse
from shtopk.training.history import History
from shtopk.training.plot import plot
from shtopk.training.provenance import code_revision
from shtopk.training.run_folder import CODE, WRITTEN, in_the_way, note, remove, written
from shtopk.training.settings import defaults_of, texts_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(words, trained):
    return trained([*words, "--epochs", "3", "--profile", "2", "--seed", "5"])


def test_a_run_says_where_it_comes_from(run, words):
    record = json.loads((run / "run.json").read_text())
    assert record["packages"]["torch"] == metadata.version("torch") and "transformers" in record["packages"]
    assert record["arguments"]["seed"] == 5 and record["arguments"]["learning_rate"] == 5e-3
    assert record["data"]["train"]["documents"] == 42 and len(record["data"]["test"]["sha256"]) == 64
    assert record["code"] == code_revision()
    assert (record["processes"], record["device"]) == (1, "cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git repository")
def test_the_revision_is_gits():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert code_revision()["revision"] == head


def test_its_arguments_make_the_same_weights_once_more(run, tmp_path):
    fields = yaml.safe_load((run / "arguments.yaml").read_text())
    assert fields["seed"] == 5 and fields["epochs"] == 3.0
    again = tmp_path / "again"
    train.main(["--config", str(run / "arguments.yaml"), "--profile", "0", "--output_dir", str(again)])
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_another_operator_brings_its_own_temperatures_unless_some_were_given(words, trained):
    def again(run, *more):
        model = parse(["--config", str(run / "arguments.yaml"), *more], writes=False).model
        return model.temperature, model.initial_temperature

    relative = ["--operator", "successive_halving_relative"]
    own = trained([*words, "--epochs", "1"])
    assert again(own) == (1.0, None) and again(own, *relative) == (0.0625, 2.0)
    asked = trained([*words, "--epochs", "1", *relative, "--temperature", "0.0625"])
    assert again(asked) == again(asked, "--operator", "iterative") == (0.0625, None)


def test_a_checkpoint_says_how_its_training_read_texts(summary_words, trained):
    run = trained([*summary_words, "--epochs", "1", "--max_tokens", "20"])
    checkpoint = run / "checkpoints" / "update_6"
    assert texts_of(checkpoint) == texts_of(run) == (Columns(("body",)), 20)
    assert "arguments.yaml" in json.loads((checkpoint / "manifest.json").read_text())["files"]


def test_a_changed_document_changes_the_fingerprint(run, words, trained, tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = Path(words[1]).read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].replace("bank", "shares")]) + "\n")
    other = trained([*words, "--epochs", "1", "--train_file", str(path)])
    before, after = (json.loads((folder / "run.json").read_text())["data"] for folder in (run, other))
    assert before != after


def test_the_history_has_a_line_for_every_update_and_evaluation(run):
    rows = rows_of(run / "history.jsonl")
    updates = [row for row in rows if "loss" in row]
    assert [row["update"] for row in updates] == list(range(1, 19))
    assert [row["update"] for row in rows if "eval_accuracy" in row] == [6, 12, 18]
    assert all(row["tokens_per_second"] > row["documents_per_second"] > 0 for row in updates)
    assert all(row["gradient_norm"] > 0 and row["scorer_gradient_norm"] > 0 for row in updates)
    assert all(row["peak_memory_gib"] > 0.1 for row in updates)
    assert {row["temperature"] for row in updates} == {1.0}
    assert all(row["selection_entropy"] > 0 for row in updates)


def test_a_picture_shows_the_course_if_there_is_one(run, tmp_path):
    assert Image.open(run / "training.png").size[0] > 500
    plot(History(tmp_path / "history.jsonl").path, "eval_accuracy", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_trace_has_the_updates_that_were_asked_for(run):
    trace = json.loads((run / "trace.json").read_text())
    assert len({event["name"] for event in trace["traceEvents"] if event["name"].startswith("ProfilerStep")}) == 2


def test_a_history_goes_on_where_the_run_does(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    for update in (1, 2, 3):
        history.add(update, {"loss": 1.0})
    history.add(3, {"eval_accuracy": 0.5})
    with path.open("a") as file:
        file.write('{"update": 4, "lo')  # killed here
    History(path, update=3, evaluated=2)
    assert rows_of(path) == [{"update": update, "loss": 1.0} for update in (1, 2, 3)]
    History(path)
    assert path.read_text() == ""


def test_a_tracker_that_is_not_installed_is_named(refusal, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    assert_refused(refusal("--tracker", "tensorboard,wandb"), "tracker", "package wandb")


@pytest.fixture
def rich(words, summary_words, trained):
    """Runs that leave all there is, of classes and of summaries."""
    classes = trained([*words, "--epochs", "1", "--profile", "2", "--tracker", "tensorboard"])
    return [classes, trained([*summary_words, "--epochs", "1", "--show", "1"])]


def test_the_page_on_training_tells_of_every_file(rich):
    page = (ROOT / "docs" / "many_processes.md").read_text()
    for path in [path for run in rich for path in run.iterdir()]:
        assert path.name.startswith("tokenizer") or path.suffix == ".py" or f"`{path.name}" in page, path.name


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_file_of_a_run_has_a_name_that_is_known(rich):
    of_rules_of_their_own = {".lock"} | {name for run in rich for name in names_in(run) if name.startswith("checkp")}
    known = {path.relative_to(run).as_posix() for run in rich for name in WRITTEN for path in run.glob(name)}
    left = set().union(*map(names_in, rich))
    assert known == left - of_rules_of_their_own
    assert {name for name in left if "/" not in name and name.endswith(".py")} == set(CODE)


OTHERS = {
    "notes.txt",
    "mine.py",
    "mine.safetensors",
    "results.json",
    "document_a.html",
    "logs/mine/notes",
    "spiece.model",
}


@pytest.mark.parametrize("older", [False, True])
def test_what_an_earlier_run_left_goes_and_files_of_others_stay(older, rich, tmp_path):
    for run in rich:
        folder = shutil.copytree(run, tmp_path / run.name)
        if older:  # without a list of its files
            record = json.loads((folder / "run.json").read_text())
            del record["files"]
            (folder / "run.json").write_text(json.dumps(record))
        (folder / "logs" / "mine").mkdir(parents=True)
        for name in OTHERS:
            (folder / name).touch()
        remove(written(folder))
        assert {name for name in names_in(folder) if not name.startswith("checkpoints/")} == OTHERS | {".lock"}
        (folder / "model.safetensors").touch()  # of whom, without a run.json?
        assert not written(folder)


def test_a_model_of_a_finished_run_without_list_and_checkpoints_is_its_own(tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "run.json").write_text("{}")
    assert in_the_way(tmp_path) is not None
    (tmp_path / "all_results.json").touch()
    assert in_the_way(tmp_path) is None


@pytest.mark.parametrize("files", [5, None, "README.md", [["a"], 5], {"README.md": 1}])
def test_what_is_no_list_of_files_names_none(files, tmp_path):
    for name in ("README.md", "model.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "run.json").write_text(json.dumps({"files": files, "data": 1}))
    note(tmp_path, "model.safetensors")
    assert in_the_way(tmp_path) == "README.md"
    assert json.loads((tmp_path / "run.json").read_text())["data"] == 1
    (tmp_path / "run.json").write_text("{")
    note(tmp_path, "README.md")
    assert (tmp_path / "run.json").read_text() == "{"


def test_what_a_run_would_replace_where_it_goes_on_is_refused_too(words, trained_here, refusal):
    run = trained_here([*words, "--epochs", "1"])
    (run / "trace.json").write_text("mine")
    assert_refused(refusal("--resume", "latest", base=[*words, "--epochs", "1"]), "output_dir", "trace.json")


def test_a_file_of_others_with_a_name_that_a_run_gives_is_not_replaced_beside_a_run(words, trained_here, refusal):
    run = trained_here([*words, "--epochs", "1"])
    (run / "vocab.txt").write_text("mine")
    assert_refused(refusal("--overwrite", "true", base=words), "output_dir", "vocab.txt")
    assert (run / "vocab.txt").read_text() == "mine" and (run / "model.safetensors").exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_results_of_one_run_never_stand_beside_the_arguments_of_another(
    elsewhere, words, trained, trained_here, monkeypatch
):
    class Begun(Exception):
        pass

    def begin(*_):
        raise Begun

    run = trained_here([*words, "--epochs", "1"])
    (run / "notes.txt").touch()
    words = [*words, "--epochs", "2"]
    source = trained(words) / "checkpoints" / "update_6"
    monkeypatch.setattr(loop, "train_step", begin)
    with pytest.raises(Begun):
        train.main([*words, "--overwrite", "true", *(["--resume", str(source)] if elsewhere else [])])
    assert yaml.safe_load((run / "arguments.yaml").read_text())["epochs"] == 2
    left = {name for name in names_in(run) if not name.startswith("checkpoints/update_6/")}
    assert left == {".lock", "notes.txt", "arguments.yaml", "run.json", "history.jsonl"}
    assert (run / "checkpoints" / "update_6").is_dir() == elsewhere


@pytest.mark.parametrize("name", ["README.md", "config.json", "vocab.txt"])
def test_files_of_others_are_not_replaced_in_a_folder_without_a_run(name, refusal, tmp_path):
    (tmp_path / "run" / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "run" / name).write_text("mine")
    assert_refused(refusal("--overwrite", "true"), "no run", name)
    assert_refused(refusal("--resume", "latest"), "no run to go on with")
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_a_backbone_is_not_removed_by_the_run_that_reads_it(refusal, encoder, words, tmp_path):
    run = shutil.copytree(encoder, tmp_path / "run")
    assert_refused(refusal("--backbone", run, "--overwrite", "true"), "backbone", "--overwrite", "output_dir")


def test_what_the_environment_says_of_accumulation_changes_nothing(run, words, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    train.main([*words, "--epochs", "3", "--seed", "5", "--output_dir", str(tmp_path / "other")])
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("task", "columns"), [
    ("pairs", Columns(("text",), pair="text_pair")), ("recall", Columns(("prompt",))), ("bbc", Columns(("text",))),
])  # fmt: skip
def test_files_for_a_model_of_a_task_have_the_columns_of_that_task(task, columns, tmp_path):
    (tmp_path / "arguments.yaml").write_text(f"task: {task}\n")
    assert texts_of(tmp_path) == (columns, None)


def test_how_long_made_documents_were_is_not_taken_over_to_others(tmp_path):
    (tmp_path / "arguments.yaml").write_text("task: needle\nneedle_tokens: 400\nmax_tokens: 50\n")
    assert defaults_of(tmp_path, ["--test_file", "a.csv"]) == {"max_tokens": 50}
    assert defaults_of(tmp_path, [])["needle_tokens"] == 400
