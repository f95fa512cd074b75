"""Figures that come out the same with other code count as up to date, and no others."""

import json
import sys

import confirm
import origin
import pytest
import renew
import stale
from parts import Part

SCRIPT = """
import json, sys
from pathlib import Path
path = Path(sys.argv[1].removeprefix("--results=")) / "some.json"
record = json.loads(path.read_text())
made = [{"way": way, "seed": seed, "accuracy": {"ours": ACCURACY}.get(way, 0.5), "train_seconds": 7.0}
        for seed in (0, 1) for way in ("ours", "theirs")]
known = [(run["way"], run["seed"]) for run in record["runs"]]
record["runs"] += [run for run in made if (run["way"], run["seed"]) not in known]
path.write_text(json.dumps(record))
path.with_suffix(".md").write_text(f"a table of {len(record['runs'])} runs")
"""
RUNS = [{"way": way, "seed": seed, "accuracy": {"ours": 0.9}.get(way, 0.5), "train_seconds": 1.0 + seed}
        for seed in (0, 1) for way in ("ours", "theirs")]  # fmt: skip
THEN = {"revision": "aaaaaaaaaaaa", "clean": True, "files": "of then", "runs": "0-3"}
NOW = {"revision": "bbbbbbbbbbbb", "clean": True, "files": origin.digest({"a.py": "2"})}
PART = Part("some", ("some",), ("script.py",), 10)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A result that changed code has made out of date, and a script that makes what its record lacks."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "results").mkdir()
    for module in (confirm, renew, stale):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(renew, "ROOT", tmp_path)
    monkeypatch.setattr(renew, "STAGING", tmp_path / "runs")
    monkeypatch.setattr(origin, "here", lambda script, result, cpu: dict(NOW))
    hashes = {None: {"a.py": "2"}, "aaaaaaaaaaaa": {"a.py": "1"}}
    monkeypatch.setattr(stale, "_hashes", lambda script, result, cpu, revision=None: hashes.get(revision))
    keep(tmp_path, {"runs": RUNS, "measured": [THEN]})
    return tmp_path


def keep(folder, record):
    (folder / "results" / "some.json").write_text(json.dumps(record))


def kept(folder):
    return json.loads((folder / "results" / "some.json").read_text())


def handed_over(folder):
    """The record that `make results` goes on from."""
    return json.loads((folder / "runs" / "some" / "some.json").read_text())


def comes_out(folder, accuracy):
    (folder / "benchmarks" / "script.py").write_text(f"ACCURACY = {accuracy}\n{SCRIPT}")


def test_the_same_figures_count_as_up_to_date_whatever_time_they_took(place):
    comes_out(place, 0.9)
    assert "changed since aaaaaaaaaaaa" in stale.stale(PART)["some"]
    assert confirm.confirm(PART) is None
    assert kept(place) == {"runs": RUNS, "measured": [THEN | {"confirmed": NOW | {"runs": 2}}]}
    assert stale.stale(PART) == {}
    assert list((place / "runs").iterdir()) == [place / "runs" / "some-again.lock"]


def test_each_way_of_each_revision_is_made_again(place):
    comes_out(place, 0.9)
    keep(place, {"runs": RUNS, "measured": [THEN | {"runs": "0-1"}, THEN | {"clean": False, "runs": "2-3"}]})
    assert confirm.confirm(PART) is None
    assert [entry["confirmed"]["runs"] for entry in kept(place)["measured"]] == [4, 4]


def test_all_runs_of_a_training_are_made_again_together(place):
    evaluated = [run | {"trained_as": run["way"], "k": k} for run in RUNS for k in (8, 16)]
    record = {"runs": evaluated, "measured": [THEN | {"runs": "0-7"}]}
    assert confirm.sample(record) == evaluated[:4]  # of the first seed


def test_other_figures_are_named_and_confirm_nothing(place):
    comes_out(place, 0.9000001)
    assert "differs: some.json has way ours, seed 0, accuracy 0.9" in confirm.confirm(PART)
    assert kept(place)["measured"] == [THEN]
    assert stale.stale(PART)


def test_a_way_whose_figures_are_to_change_is_made_anew_alone_and_the_rest_is_confirmed(place):
    comes_out(place, 0.8)
    record = {"runs": RUNS, "measured": [THEN | {"minutes": 8}]}
    keep(place, record)
    assert confirm.confirm(PART, ["nobody"]) == "has no runs of nobody"
    assert confirm.confirm(PART, ["ours"]) is None
    assert kept(place) == record and stale.stale(PART)  # nothing is taken out before there is something new
    assert handed_over(place)["runs"] == [RUNS[1], RUNS[3]]
    assert handed_over(place)["measured"] == [THEN | {"runs": "0-1", "minutes": 4, "confirmed": NOW | {"runs": 1}}]

    assert renew.measure(PART) is None
    made = [{"way": "ours", "seed": seed, "accuracy": 0.8, "train_seconds": 7.0} for seed in (0, 1)]
    assert kept(place)["runs"] == [RUNS[1], RUNS[3], *made]
    assert (place / "results" / "some.md").read_text() == "a table of 4 runs"
    assert stale.stale(PART) == {}


def test_what_is_begun_is_not_replaced(place):
    comes_out(place, 0.8)
    begun = place / "runs" / "some" / "some.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("measured for hours")
    assert "is begun in" in confirm.confirm(PART, ["ours"])
    assert begun.read_text() == "measured for hours"


def test_runs_of_a_row_that_is_new_are_added_to_those_that_are_confirmed(place):
    comes_out(place, 0.9)
    theirs = [RUNS[1], RUNS[3]]
    keep(place, {"runs": theirs, "measured": [THEN | {"runs": "0-1"}]})
    assert confirm.confirm(PART) is None
    ours = [run | {"train_seconds": 7.0} for run in (RUNS[0], RUNS[2])]
    assert kept(place)["runs"] == [*theirs, *ours]
    assert kept(place)["measured"] == [
        THEN | {"runs": "0-1", "confirmed": NOW | {"runs": 1}},
        NOW | {"runs": "2-3"},
    ]
    assert (place / "results" / "some.md").read_text() == "a table of 4 runs"
    assert stale.stale(PART) == {}


def test_an_entry_whose_runs_are_all_taken_out_goes_with_them(place):
    comes_out(place, 0.8)
    keep(place, {"runs": RUNS, "measured": [THEN | {"runs": "0"}, THEN | {"runs": "1-3"}]})
    assert confirm.confirm(PART, ["ours"]) is None
    assert [entry["runs"] for entry in handed_over(place)["measured"]] == ["0-1"]


def test_what_fails_confirms_nothing(place):
    (place / "benchmarks" / "script.py").write_text("raise SystemExit(3)")
    assert "failed with exit code 3" in confirm.confirm(PART)
    assert kept(place)["measured"] == [THEN]


def test_what_cannot_be_compared_is_refused(place):
    assert "measures times" in confirm.confirm(Part("some", ("some",), ("script.py",), 10, timed=True))
    for record in (
        {"figures": 1, "measured": [NOW]},
        {"runs": RUNS},
        {"runs": RUNS, "measured": [{"revision": None}]},
    ):
        keep(place, record)
        assert "no runs of a known revision" in confirm.confirm(PART)


def test_the_command_says_of_each_part_what_came_out(place, monkeypatch, capsys):
    comes_out(place, 0.9)
    monkeypatch.setattr(confirm, "NAMES", {"some": PART})
    monkeypatch.setattr(sys, "argv", ["confirm.py", "some"])
    for said in ("some: confirmed\n", "some: is up to date\n"):
        with pytest.raises(SystemExit) as stop:
            confirm.main()
        assert (capsys.readouterr().out, stop.value.code) == (said, False)
