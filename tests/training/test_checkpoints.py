"""Checkpoints on disk: whole or not there, rotated but never the best, damage found out, none lost on a full disk."""

import errno
import json

import pytest
from safetensors import SafetensorError

from shtopk.training.checkpoints import CheckpointError, Checkpoints, publish


def fill(text):
    def write(folder):
        (folder / "model.safetensors").write_text(text)
        (folder / "state.json").write_text("{}")

    return write


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", total_limit=2)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_stay_and_the_best_does(checkpoints):
    for update in range(10, 70, 10):
        checkpoints.write(update, fill(str(update)), keep=[20] if update >= 20 else [])
    assert checkpoints.updates() == [20, 50, 60]
    assert checkpoints.latest() == checkpoints.path(60)


def test_a_checkpoint_that_is_being_written_has_no_name_yet(checkpoints):
    def look(folder):
        fill("new")(folder)
        assert checkpoints.updates() == [1]

    checkpoints.write(1, fill("old"))
    checkpoints.write(2, look)
    assert checkpoints.updates() == [1, 2]


@pytest.mark.parametrize("failure", [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_a_full_disk_is_told_in_one_line_and_leaves_the_last_checkpoint(checkpoints, failure):
    def run_out(folder):
        fill("half")(folder)
        raise failure

    checkpoints.write(1, fill("whole"))
    with pytest.raises(CheckpointError, match="No space left on device") as told:
        checkpoints.write(2, run_out)
    assert "\n" not in str(told.value) and str(checkpoints.path(1)) in str(told.value)
    assert names(checkpoints) == ["update_1"]
    assert checkpoints.latest() == checkpoints.path(1)


def test_a_half_written_one_is_never_taken_and_goes_with_the_next(checkpoints):
    leftover = checkpoints.folder / "partial_5"
    leftover.mkdir(parents=True)
    fill("half")(leftover)
    assert checkpoints.latest() is None
    (checkpoints.folder / "partial_results").mkdir()  # whose that may be
    checkpoints.write(1, fill("whole"))
    assert names(checkpoints) == ["partial_results", "update_1"]


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: (folder / "model.safetensors").write_text("NEW"), "model.safetensors is damaged"),
    (lambda folder: (folder / "model.safetensors").write_text("ne"), "model.safetensors is damaged"),
    (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
    (lambda folder: (folder / "manifest.json").unlink(), "No such file"),
    (lambda folder: (folder / "manifest.json").write_text('{"model'), "manifest.json is damaged"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is damaged"),
])  # fmt: skip
def test_damage_is_found_and_the_one_before_is_taken(checkpoints, capsys, damage, message):
    checkpoints.write(1, fill("old"))
    checkpoints.write(2, fill("new"))
    damage(checkpoints.path(2))
    assert checkpoints.latest() == checkpoints.path(1)
    assert message in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoints.find(str(checkpoints.path(2)))
    checkpoints.write(2, fill("again"))
    assert checkpoints.find("latest") == checkpoints.path(2)
    assert names(checkpoints) == ["update_1", "update_2"]


@pytest.mark.parametrize(("source", "brought"), [(3, [1, 3]), (1, [1])])
def test_going_on_from_elsewhere_brings_the_best_along_and_what_may_be_it(source, brought, checkpoints, tmp_path):
    for update in (1, 2, 3):
        checkpoints.write(update, fill(str(update)), keep=[1])
    there = Checkpoints(tmp_path / "other", total_limit=1)
    there.start(checkpoints.path(source))
    assert there.updates() == brought
    assert there.find("latest") == there.path(source)
    assert (there.path(1) / "model.safetensors").read_text() == "1"
    assert checkpoints.updates() == [1, 2, 3]


def test_going_back_does_not_lose_later_ones_unless_told_to(checkpoints):
    for update in (1, 2):
        checkpoints.write(update, fill(str(update)))
    with pytest.raises(CheckpointError, match="--overwrite true"):
        checkpoints.start(checkpoints.path(1))
    assert checkpoints.updates() == [1, 2]
    checkpoints.start(checkpoints.path(1), overwrite=True)
    assert checkpoints.updates() == [1]
    checkpoints.start(None)
    assert checkpoints.updates() == []


def test_another_folder_is_no_checkpoint(checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder checkpoints/update_N"):
        checkpoints.find(str(tmp_path))
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoints.find(str(tmp_path / "update_7"))


def test_a_manifest_names_every_file_and_the_model_alone_is_published(checkpoints, tmp_path):
    checkpoints.write(1, fill("weights"))
    files = json.loads((checkpoints.path(1) / "manifest.json").read_text())["files"]
    assert files.keys() == {"model.safetensors", "state.json"}
    assert files["model.safetensors"]["bytes"] == 7
    (checkpoints.path(1) / "arguments.yaml").write_text("output_dir: where it was when this was written")
    (tmp_path / "model.safetensors").write_text("old")
    publish(checkpoints.path(1), tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "weights"
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "checkpoints"}


def test_what_an_older_one_needs_stays_while_it_does(checkpoints):
    for update, best in ((10, 10), (20, 10), (30, 30)):
        checkpoints.write(update, fill(str(update)), keep=[best])
    assert checkpoints.updates() == [10, 20, 30]
    (checkpoints.path(30) / "state.json").unlink()
    assert checkpoints.latest() == checkpoints.path(20)
    (checkpoints.path(10) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="needs the best checkpoint so far"):
        checkpoints.find(str(checkpoints.path(20)))


def test_damaged_ones_are_not_lost_unless_told_to(checkpoints):
    checkpoints.write(1, fill("old"))
    (checkpoints.path(1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole; .*--overwrite true"):
        checkpoints.find("latest")
    assert checkpoints.updates() == [1]
    assert checkpoints.find("latest", overwrite=True) is None


def test_foreign_files_are_left_alone(checkpoints):
    foreign = checkpoints.folder / "checkpoint-500"
    foreign.mkdir(parents=True)
    (checkpoints.folder / "update_7").write_text("a file")
    (checkpoints.folder / "update_007").mkdir()
    checkpoints.start(None)
    checkpoints.write(1, fill("x"))
    (checkpoints.path(1) / ".DS_Store").write_text("x")
    assert checkpoints.find("latest") == checkpoints.path(1)
    assert foreign.is_dir() and checkpoints.updates() == [1]


def test_one_that_was_being_replaced_when_the_run_was_killed_is_found(checkpoints):
    checkpoints.write(1, fill("old"))
    checkpoints.path(1).rename(checkpoints.folder / "partial_old_update_1")
    assert checkpoints.find("latest") == checkpoints.path(1)
