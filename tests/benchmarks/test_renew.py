"""What is out of date is named with the reason, and measured anew without losing what was there."""

import json
import sys

import origin
import parts
import pytest
import record
import renew
import stale
from parts import Part
from sources import Code

SCRIPT = """
import json, os, sys
from pathlib import Path
folder = Path(sys.argv[1].removeprefix("--results="))
begun = (folder / "begun").exists()
(folder / "begun").touch()
if "fail" in sys.argv and not begun:
    sys.exit(3)
record = {"words": sys.argv[2:], "begun": begun, "made by": os.environ.get("MADE_BY"), "measured": [ORIGIN],
          "malloc": os.environ.get("MALLOC_MMAP_MAX_")}
(folder / f"{sys.argv[2]}.json").write_text(json.dumps(record))
(folder / f"{sys.argv[2]}.md").write_text("a table")
"""
ORIGIN = {"revision": "aaaaaaaaaaaa", "clean": True, "files": origin.digest({"a.py": "1"}), "minutes": 2.5}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of results, a script that "measures", and code of which a.py counts."""
    (tmp_path / "results" / "gpu").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "script.py").write_text(f"ORIGIN = {ORIGIN!r}\n{SCRIPT}")
    for module in (stale, renew):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(renew, "ROOT", tmp_path)
    monkeypatch.setattr(renew, "STAGING", tmp_path / "runs" / "results")
    monkeypatch.setattr(renew, "CACHE", tmp_path / "no cache")
    monkeypatch.setattr(renew, "is_busy", lambda: False)
    hashes = {None: {"a.py": "1"}, "aaaaaaaaaaaa": {"a.py": "1"}}
    monkeypatch.setattr(stale, "_hashes", lambda script, result, cpu, revision=None: hashes.get(revision))
    monkeypatch.setattr(origin, "version", {"torch": "2.9.0+cpu"}.get)
    return tmp_path, hashes


def part(name="some", command="script.py some", **options):
    return Part(name, options.pop("files", (name,)), (command,), 10, **options)


def keep(folder, name, **entry):
    (folder / "results" / f"{name}.json").write_text(json.dumps({"measured": [ORIGIN | entry]}))


def run(monkeypatch, capsys, *some, words=()):
    for module in (parts, renew, stale):
        monkeypatch.setattr(module, "PARTS", some)
    for module in (parts, renew):
        monkeypatch.setattr(module, "NAMES", {one.name: one for one in some})
    monkeypatch.setattr(sys, "argv", ["renew.py", *words])
    try:
        renew.main()
    except SystemExit as stop:
        return capsys.readouterr().out, stop.code
    return capsys.readouterr().out, 0


def test_what_is_up_to_date_is_not_out_of_date(place):
    keep(place[0], "some", torch="2.9.0+cu130")
    assert stale.stale(part()) == {}
    assert stale.minutes(part()) == 2.5  # as the record says


def test_the_reason_is_named(place):
    folder, hashes = place
    reason = lambda: stale.stale(part())["some"]
    assert reason() == "never measured"
    (folder / "results" / "some.json").write_text('{"runs": []}')
    assert reason() == "no revision recorded"
    assert stale.minutes(part()) == 10
    mixed = {"measured": [{"revision": None, "runs": "0-3"}, ORIGIN]}
    (folder / "results" / "some.json").write_text(json.dumps(mixed))
    assert reason() == "no revision recorded for some of it"
    keep(folder, "some", torch="2.8.0")
    assert reason() == "torch 2.8.0, now 2.9.0+cpu"
    assert stale.stale(part(needs="gpu")) == {}  # whose machine has a torch of its own
    keep(folder, "some")
    hashes[None] = {"a.py": "2", "b.py": "1", "c.py": "1", "d.py": "1", "e.py": "1"}
    assert reason() == "changed since aaaaaaaaaaaa: a.py, b.py, c.py and 2 more"
    keep(folder, "some", revision="not here")
    assert reason() == "files changed since not here, which is not here"
    hashes[None] = hashes["aaaaaaaaaaaa"]
    keep(folder, "some", files="of no revision", clean=False)
    assert reason() == "files differ from those it was measured with, aaaaaaaaaaaa and changes"


def test_a_part_takes_the_place_of_the_old_one_when_it_is_complete(place, monkeypatch, capsys):
    folder, _ = place
    (folder / "results" / "some.json").write_text('{"runs": ["old"]}')
    said, code = run(monkeypatch, capsys, part())
    assert code == 0
    assert said.splitlines() == ["some: about 10 min", "in all about 10 min", "some: done"]
    assert json.loads((folder / "results" / "some.json").read_text())["words"] == ["some"]
    assert (folder / "results" / "some.md").read_text() == "a table"
    assert not (folder / "runs" / "results" / "some").exists()
    said, code = run(monkeypatch, capsys, part())
    assert (said, code) == ("nothing to measure\n", 0)


def test_a_part_that_fails_leaves_the_old_figures_and_goes_on_where_it_was(place, monkeypatch, capsys):
    folder, _ = place
    (folder / "results" / "some.json").write_text('{"runs": ["old"]}')
    fails, other = part(command="script.py some fail"), part("other", "script.py other")
    said, code = run(monkeypatch, capsys, fails, other)
    assert code == 1
    assert "some: failed with exit code 3" in said and "other: done" in said
    assert (folder / "results" / "some.json").read_text() == '{"runs": ["old"]}'
    said, code = run(monkeypatch, capsys, fails, other)
    assert code == 0
    assert json.loads((folder / "results" / "some.json").read_text())["begun"]


def test_what_was_begun_with_other_code_is_set_aside_and_what_is_up_to_date_is_not_measured_again(place):
    folder, _ = place
    staged = folder / "runs" / "results" / "some"
    staged.mkdir(parents=True)
    (staged / "some.json").write_text('{"runs": ["begun"]}')
    keep(folder, "tuned")
    keep(folder, "settings")
    renew.prepare(part(files=("some", "tuned"), reads=("settings",)), staged)
    assert (staged / "some.old").read_text() == '{"runs": ["begun"]}'
    assert {path.name for path in staged.iterdir()} == {"some.old", "tuned.json", "settings.json"}
    keep(folder / "runs", "some/some")
    (staged / "tuned.json").unlink()
    renew.prepare(part(files=("some",)), staged)
    assert (staged / "some.json").exists()  # of this code


def test_what_needs_more_than_is_here_is_named_and_the_rest_is_measured(place, monkeypatch, capsys):
    monkeypatch.setattr(renew.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(renew, "RFCS", place[0] / "nowhere")
    tuned = part("tuned", "script.py tuned fail")
    some = [part("gpu", needs="gpu"), part("texts", needs="rfcs"), tuned, part("late", reads=("tuned",)), part()]
    said, code = run(monkeypatch, capsys, *some)
    assert "gpu: needs a GPU" in said and "texts: needs the RFCs; make rfcs fetches them" in said
    assert "late: takes its settings from tuned.json, which is out of date; make results PARTS=tuned" in said
    assert "some: done" in said and code == 1  # because of tuned
    said, code = run(monkeypatch, capsys, *some[:2])
    assert code == 0 and said.count("needs a GPU") == 2 and "nothing to measure" in said


def test_a_record_that_several_commands_make_names_the_part(place, monkeypatch, capsys):
    both = Part("both", ("some",), ("script.py some first", "script.py some"), 10)
    run(monkeypatch, capsys, both, part("other", "script.py other"))
    kept = {name: json.loads((place[0] / "results" / f"{name}.json").read_text()) for name in ("some", "other")}
    assert kept["some"]["made by"] == "make results PARTS=both" and kept["other"]["made by"] is None
    monkeypatch.setenv("MADE_BY", "make results PARTS=both")
    assert record.command() == "make results PARTS=both"


def test_a_part_that_keeps_memory_tells_glibc_and_its_record_names_the_part(place, monkeypatch, capsys):
    run(monkeypatch, capsys, part(keeps_memory=True), part("other", "script.py other"))
    kept = {name: json.loads((place[0] / "results" / f"{name}.json").read_text()) for name in ("some", "other")}
    assert (kept["some"]["malloc"], kept["other"]["malloc"]) == ("0", None)
    assert (kept["some"]["made by"], kept["other"]["made by"]) == ("make results PARTS=some", None)


def test_only_the_named_parts_are_measured(place, monkeypatch, capsys):
    said, _ = run(monkeypatch, capsys, part(), part("other", "script.py other"), words=["other"])
    assert "some" not in said and "other: done" in said
    said, code = run(monkeypatch, capsys, part(), words=["another"])
    assert code == 2
    said, _ = run(monkeypatch, capsys, part(), words=["--plan"])
    assert said.splitlines() == ["some: about 10 min", "in all about 10 min"]


def test_two_calls_do_not_measure_a_part_at_once(place):
    path = place[0] / "a.lock"
    with renew.locked(path) as first, renew.locked(path) as second:
        assert first is not None and second is None
    with renew.locked(path) as again:
        assert again is not None


def test_the_code_of_a_revision_is_that_of_git():
    revision, _ = origin.revision()
    if revision is None:
        pytest.skip("no git here")
    assert "benchmarks/speed.py" in Code.of_revision(revision).files
    assert Code.of_revision("0" * 40) is None
