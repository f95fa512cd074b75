"""`shtopk compare`: trainings that differ in how they pool, one after the other, on one's own data."""

import errno
import json
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import pytest

from shtopk.commands import main
from shtopk.training import comparison
from shtopk.training.command_line import parse
from shtopk.training.comparison import Planned, planned, table


@pytest.fixture
def trainings(monkeypatch):
    """The command lines of the trainings that were made, none of them really."""
    made = []

    def fine_tune(work, words, folder):
        made.append(words)
        if len(made) == 3:
            raise KeyboardInterrupt
        comparison.Path(folder).mkdir(parents=True)
        (comparison.Path(folder) / "run.json").write_text('{"files": ["model.safetensors"]}')
        (comparison.Path(folder) / "model.safetensors").touch()
        (comparison.Path(folder) / "vocab.txt").touch()  # of somebody else
        (comparison.Path(folder) / "checkpoints" / "update_6").mkdir(parents=True)
        (comparison.Path(folder) / "logs").mkdir()
        (comparison.Path(folder) / "all_results.json").touch()
        return {"accuracy": len(made) / 10, "train_seconds": 1.0}

    monkeypatch.setattr(comparison, "in_its_own_process", fine_tune)
    return made


def test_a_comparison_that_was_stopped_goes_on_with_what_is_missing(trainings, shtopk, refused, words, tmp_path):
    given = [*words, "--operators=hard,none", "--k=2,4", "--seeds=0,1", f"--output_dir={tmp_path / 'out'}"]
    refused("compare", *given, code=130)
    assert len(json.loads((tmp_path / "out" / "compare.json").read_text())["runs"]) == 2
    shown = shtopk("compare", *given)
    assert len(trainings) == 7  # the third of six twice
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [(run["way"], run["k"], run["seed"]) for run in record["runs"]] == [
        ("hard", "2", 0), ("none", "all", 0), ("hard", "4", 0), ("hard", "2", 1), ("none", "all", 1), ("hard", "4", 1),
    ]  # fmt: skip
    assert "| hard | 2 | 0.300 ± 0.283 | 1.0 |" in shown
    assert "--operator=hard" in trainings[0] and "--resume=latest" in trainings[0]
    left = {path.name for path in (tmp_path / "out" / "hard-k2-seed0").iterdir()}
    assert left == {"all_results.json", "logs", "run.json", "vocab.txt"}


def test_a_full_disk_leaves_the_record_of_a_comparison_as_it_was(trainings, shtopk, refused, words, tmp_path):
    given = [*words, "--operators=hard", "--seeds=0", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given, "--k=2")
    before = (tmp_path / "out" / "compare.json").read_text()
    with patch.object(comparison.Path, "write_text", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        assert "No space left" in refused("compare", *given, "--k=2,4", code=1)
    assert (tmp_path / "out" / "compare.json").read_text() == before


def test_its_own_options_may_have_dashes_and_the_names_of_others(trainings, shtopk, words, tmp_path):
    given = [*words, "--operators=hard", "--k=2", f"--output-dir={tmp_path / 'out'}"]
    shtopk("compare", *given, "--seeds=0,0")
    shtopk("compare", *given, "--seeds=0", "--overwrite_output_dir")
    assert len(trainings) == 2 and (tmp_path / "out" / "compare.md").exists()


def test_another_comparison_is_not_mixed_with_it(trainings, shtopk, refused, words, tmp_path):
    given = [*words, "--operators=hard", "--k=2", "--seeds=0", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given)
    assert "name another output_dir" in refused("compare", *given, "--epochs=7")
    folders = sorted((tmp_path / "out").rglob("*"))
    assert "expected a column 'topic'" in refused("compare", *given, "--overwrite", "true", "--label_column=topic")
    assert sorted((tmp_path / "out").rglob("*")) == folders  # nothing is removed for what cannot be read
    shtopk("compare", *given, "--epochs=7", "--overwrite", "true")
    assert len(trainings) == 2


def test_trainings_on_other_data_are_not_mixed_with_it_even_if_the_file_has_the_same_name(
    trainings, shtopk, refused, words, documents, tmp_path
):
    mine = tmp_path / "mine.jsonl"
    mine.write_text(documents.read_text())
    given = [*words, f"--train_file={mine}", "--operators=hard", "--k=2", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given, "--seeds=0")
    mine.write_text(documents.read_text().replace("goal", "match"))
    said = refused("compare", *given, "--seeds=0,1")
    assert "of trainings with other settings: the content of train_file" in said
    assert len(trainings) == 1


def test_the_table_shows_the_trainings_of_its_command(trainings, shtopk, words, tmp_path):
    given = [*words, "--operators=hard", "--k=2", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given, "--seeds=0")
    shown = shtopk("compare", *given, "--seeds=1")
    assert "hard-k2-seed1: done, 1 of 1" in shown
    assert "| hard | 2 | 0.200 | 1.0 |" in shown and "Test split, seed 1." in shown
    assert "| hard | 2 | 0.150 ± 0.071 | 1.0 |" in shtopk("compare", *given, "--seeds=0,1")


def test_a_damaged_record_is_refused(trainings, refused, words, tmp_path):
    for content in ("{", "[]", "{}"):
        (tmp_path / "compare.json").write_text(content)
        assert "is no record of a comparison" in refused("compare", *words, f"--output_dir={tmp_path}")
    assert not trainings


@pytest.mark.parametrize(("more", "named"), [
    (["--operators=soft"], "got soft"), (["--k=0"], "expected k to be"), (["--seeds=x"], "seeds"),
    (["--seeds=0.5"], "got 0.5"),
    (["--operator=hard"], "operator differs from training to training"), (["--seed", "3"], "seed differs"),
    (["--epochs=0"], "epochs"), (["--learning_rte=1"], "unknown arguments"), (["--train_file=/none.csv"], "/none.csv"),
    (["--window_k=4", "--operators=first,none"], "none keeps every token, and window_k does not"),
])  # fmt: skip
def test_what_is_impossible_is_refused_before_anything_is_trained(more, named, trainings, refused, words):
    assert named in refused("compare", *words, *more)
    assert not trainings


@pytest.mark.parametrize("field", ["operator: hard", "scorer: mlp", "freeze_scorer: true", "seed: 3",
                                   "resume_from_checkpoint: latest"])  # fmt: skip
def test_what_differs_from_training_to_training_is_refused_in_a_file_too(field, trainings, refused, words, write):
    path = write("mine.yaml", f"epochs: 1\n{field}\n")
    name = field.partition(":")[0].removesuffix("_from_checkpoint")
    assert f"{name} in {path} differs from training to training" in refused("compare", *words, "--config", path)
    assert not trainings


def test_k_may_be_given_in_a_file_and_the_folder_of_a_training_is_told(
    trainings, words, write, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = write("mine.yaml", "k: 32\noutput_dir: runs/mine\n")
    given = [word for pair in zip(words[::2], words[1::2], strict=True)
             if pair[0] not in ("--k", "--output_dir") for word in pair]  # fmt: skip
    assert main(["compare", *given, f"--config={path}", "--operators=hard", "--seeds=0"]) == 0
    assert [word for words in trainings for word in words if word.startswith("--k=")] == ["--k=32"]
    assert f"output_dir in {path} is for a single training" in capsys.readouterr().err
    assert (tmp_path / "runs" / "compare" / "compare.md").exists()


def test_who_overwrites_says_so_on_the_command_line(trainings, refused, words, write):
    path = write("mine.yaml", "overwrite: true\n")
    assert f"overwrite in {path}" in refused("compare", *words, f"--config={path}")
    assert not trainings


def test_the_arguments_of_a_run_may_be_compared(trainings, shtopk, words, write, tmp_path):
    path = write("arguments.yaml", "operator: successive_halving\nscorer: linear\nfreeze_scorer: false\nseed: 0\n")
    given = [*words, "--operators=hard", "--k=2", "--seeds=1", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given, f"--config={path}")
    assert len(trainings) == 1


def test_all_ways_with_one_seed_come_before_the_next_seed():
    found = planned(["first", "none"], ["8", "32"], [0, 1])
    assert found[:3] == [Planned("first", "8", 0), Planned("none", "all", 0), Planned("first", "32", 0)]
    assert len(found) == 6
    assert found[1].words == ["--k=1.0", "--operator=hard", "--scorer=first", "--k_by_layer=none", "--k_range=none",
                              "--seed=0"]  # fmt: skip


def test_where_nothing_is_pooled_nothing_is_pooled_between_the_layers_either(words):
    (none,) = planned(["none"], ["8"], [0])
    nowhere = parse([*words, "--k_by_layer=1:4", "--k_range=4:8", *none.words])
    assert nowhere.model.shares_or_counts is nowhere.training.range_of_k is None
    (hard,) = planned(["hard"], ["8"], [0])
    assert parse([*words, "--k_by_layer=1:4", *hard.words]).model.shares_or_counts == {"1": 4}


def test_of_a_language_model_the_vectors_before_one_layer_differ(trainings, shtopk, refused, prompt_words, tmp_path):
    given = [*prompt_words, "--operators=strided,none", "--k=3", "--seeds=0", f"--output_dir={tmp_path / 'out'}"]
    shtopk("compare", *given)
    found = [parse([*words, f"--output_dir={tmp_path / 'run'}"]).model.shares_or_counts for words in trainings]
    assert found == [{"1": 3}, {"1": 1.0}]
    assert not any(word.startswith("--k=") for words in trainings for word in words)
    for layers in ("none", "1:8,2:4"):
        assert "the one layer before which prompts are pooled" in refused("compare", *given, f"--k_by_layer={layers}")


def test_the_table_shows_the_spread_over_seeds():
    runs = [
        {"way": "hard", "k": "8", "seed": seed, "accuracy": a, "peak_mib": 100.0} for seed, a in enumerate((0.5, 0.7))
    ]
    assert table(runs, ["hard"]).splitlines()[-1] == "| hard | 8 | 0.600 ± 0.141 | 100 |"


@pytest.mark.slow
def test_real_trainings_are_compared(shtopk, words, tmp_path):
    words = [*words, "--epochs=1"]
    shown = shtopk("compare", *words, "--operators=hard_gated,first", "--k=2", "--seeds=0", f"--output_dir={tmp_path}")
    runs = json.loads((tmp_path / "compare.json").read_text())["runs"]
    assert [run["way"] for run in runs] == ["hard_gated", "first"]
    assert all(run["peak_mib"] > 0 and run["documents_per_second"] > 0 for run in runs)
    assert "| first | 2 |" in shown


@pytest.mark.slow
def test_real_trainings_of_a_language_model_are_compared(shtopk, prompt_words, tmp_path):
    given = ["--epochs=1", "--operators=hard_gated,none", "--k=4", "--seeds=0", f"--output_dir={tmp_path}"]
    shown = shtopk("compare", *prompt_words, *given)
    runs = json.loads((tmp_path / "compare.json").read_text())["runs"]
    assert all(run["loss"] > 0 and 0 <= run["exact_match"] <= 1 for run in runs)
    assert "| none | all |" in shown and "| exact match | loss |" in shown


@pytest.mark.slow
@pytest.mark.parametrize("impatient", [False, True])
def test_who_stops_a_comparison_stops_its_training_and_it_goes_on(impatient, words, tmp_path):
    given = [*words, "--epochs=200", "--operators=first", "--k=2", "--seeds=0", f"--output_dir={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "shtopk", "compare", *given], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    history = tmp_path / "out" / "first-k2-seed0" / "history.jsonl"
    while not (history.exists() and history.stat().st_size):
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    if impatient:
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "shtopk compare: stopped" in said and "Traceback" not in said
    if not impatient:
        assert "stopped by SIGTERM after update" in said and "give the same command again" in said
        assert list((history.parent / "checkpoints").glob("update_*"))
