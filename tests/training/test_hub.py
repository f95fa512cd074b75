"""The best model goes to the hub, if it is named: the repository before training, the files afterwards."""

import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from refusals import assert_refused

import train
from shtopk.commands import main as shtopk
from shtopk.tasks.columns import Columns
from shtopk.training.hub import without_folders
from shtopk.training.settings import settings_of, texts_of


@pytest.fixture
def hub(monkeypatch):
    """What a hub was asked, in the place of the real one."""
    asked = SimpleNamespace(repositories=[], uploads=[], written={}, fails=False, closed=False, mine=("me",))

    class Hub:
        def create_repo(self, repo_id, *, private=None, exist_ok=False):
            if asked.closed:
                raise PermissionError("nobody is logged in")
            asked.repositories.append((repo_id, private, exist_ok))
            return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

        def auth_check(self, repo_id, *, write):
            if write and repo_id.split("/")[0] not in asked.mine:
                raise PermissionError("403 Forbidden")

        def upload_file(self, *, repo_id, path_in_repo, path_or_fileobj, commit_message):
            assert "/" in repo_id
            asked.written[path_in_repo] = path_or_fileobj

        def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns, ignore_patterns):
            if asked.fails:
                raise ConnectionError("no network")
            paths = [path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()]
            asked.uploads += [
                path for path in paths
                if any(fnmatch.fnmatch(path, pattern) for pattern in allow_patterns)
                if not any(fnmatch.fnmatch(path, pattern) for pattern in ignore_patterns)
            ]  # fmt: skip
            return SimpleNamespace(repo_url=f"hub/{repo_id}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return asked


def test_the_best_model_is_uploaded_with_its_card_and_nothing_else(words, hub, capsys):
    words = [*words, "--epochs", "1", "--push_to_hub", "me/topics"]
    train.main([*words, "--private", "true", "--tracker", "tensorboard", "--show", "1"])
    assert set(hub.repositories) == {("me/topics", True, True)}
    assert {"model.safetensors", "tokenizer.json", "windows.py"} <= set(hub.uploads)
    assert "_name_or_path" not in hub.written["config.json"].decode()  # a folder of this machine
    assert not any("/" in path or path.endswith((".jsonl", ".html", ".yaml")) for path in hub.uploads)
    assert "run.json" not in hub.uploads and "all_results.json" not in hub.uploads
    assert "uploaded to hub/me/topics" in capsys.readouterr().out


def test_a_model_from_the_hub_reads_texts_as_its_training_did_and_tells_no_paths(summary_words, hub, tmp_path):
    train.main([*summary_words, "--epochs", "1", "--max_tokens", "20", "--push_to_hub", "me/gists"])
    content = hub.written["arguments.yaml"]
    (tmp_path / "arguments.yaml").write_bytes(content)
    assert texts_of(tmp_path) == texts_of(tmp_path / "run") == (Columns(("body",)), 20)
    assert settings_of(tmp_path)["summary_column"] == "gist"
    assert "/" not in content.decode() and "task" not in settings_of(tmp_path)


def test_a_finished_run_is_uploaded_later_with_what_its_training_would_have_uploaded(words, hub, capsys, tmp_path):
    train.main([*words, "--epochs", "1", "--push_to_hub", "me/topics"])
    at_once, hub.uploads = sorted(hub.uploads), []
    assert shtopk(["push", str(tmp_path / "run"), "me/topics", "--private"]) == 0
    assert sorted(hub.uploads) == at_once and set(hub.written) == {"arguments.yaml", "README.md", "config.json"}
    assert list(dict.fromkeys(hub.repositories)) == [("me/topics", None, True), ("me/topics", True, True)]
    assert capsys.readouterr().out.endswith("uploaded to hub/me/topics\n")


def test_the_card_on_the_hub_loads_the_model_from_there_and_tells_no_path_of_this_machine(words, hub, tmp_path):
    train.main([*words, "--epochs", "1", "--push_to_hub", "me/topics"])
    card = hub.written["README.md"].decode()
    assert 'model="me/topics"' in card and "write the model's name" not in card
    assert str(tmp_path) in (tmp_path / "run" / "README.md").read_text() and str(tmp_path) not in card
    assert "--train_file documents.jsonl" in card


@pytest.mark.parametrize(("given", "told"), [
    ("--train_file=acme/mine.csv --label_separator / --k 8", "--train_file=mine.csv --label_separator / --k 8"),
    ("--train-file 'a b/mine.csv' --resume_from_checkpoint a/b", "--train-file mine.csv --resume_from_checkpoint b"),
    ("--backbone org/bert --dataset_name /home/me/data", "--backbone org/bert --dataset_name data"),
])  # fmt: skip
def test_files_stand_in_a_card_by_their_names(given, told):
    assert without_folders(f"shtopk train {given}") == f"shtopk train {told}"


def test_what_is_no_finished_run_is_not_uploaded(hub, capsys, tmp_path):
    for name, missing in (("config.json", "all_results.json"), ("all_results.json", "config.json")):
        folder = tmp_path / missing
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(SystemExit, match="2"):
            shtopk(["push", str(folder), "me/topics"])
        assert f"finished run with its model, found no {missing} in {folder}" in capsys.readouterr().err
    assert not hub.repositories


def test_a_run_without_a_login_is_refused_for_that_again_and_again(words, hub, refusal, tmp_path):
    hub.closed = True
    for _ in range(2):
        assert_refused(refusal("--push_to_hub", "me/topics"), "me/topics", "hf auth login")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_repository_of_somebody_else_is_refused_before_training(refusal, hub, tmp_path):
    assert_refused(refusal("--push_to_hub", "you/topics"), "you/topics", "403")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_name_alone_is_a_repository_of_whoever_is_logged_in(words, hub, capsys):
    train.main([*words, "--epochs", "1", "--push_to_hub", "topics"])
    assert "uploaded to hub/me/topics" in capsys.readouterr().out
    assert 'model="me/topics"' in hub.written["README.md"].decode()


def test_a_yes_is_no_repository(refusal, hub):
    assert_refused(refusal("--push_to_hub", "true"), "me/topics", "true")
    assert not hub.repositories


def test_a_failed_upload_says_how_to_do_it_later(words, hub, last_line, tmp_path):
    hub.fails = True
    line = last_line(train.main, [*words, "--epochs", "1", "--push_to_hub", "me/topics"], code=1)
    assert_refused(line, f"shtopk push {tmp_path / 'run'} me/topics", tmp_path / "run")
    assert (tmp_path / "run" / "all_results.json").exists()
    assert "push_to_hub" not in yaml.safe_load((tmp_path / "run" / "arguments.yaml").read_text())
