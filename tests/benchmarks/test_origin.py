"""Every record says by which code its figures were measured, also one that several revisions added to."""

import json

import origin
import pytest
import record
from record import resume, save

OLD = {"revision": "aaaaaaaaaaaa", "clean": True, "files": "111111111111", "torch": "2"}
NEW = {"revision": "bbbbbbbbbbbb", "clean": False, "files": "222222222222", "torch": "2"}


@pytest.fixture
def measured_by(monkeypatch):
    """Lets what is saved from then on be measured by another origin."""

    def by(one):
        monkeypatch.setattr(origin, "here", lambda script, result, cpu: one)

    by(OLD)
    return by


def without_minutes(path):
    entries = json.loads(path.read_text())["measured"]
    assert all(entry.pop("minutes", 0) >= 0 for entry in entries)
    return entries


def add(path, *runs, **more):
    found = resume(path, "cpu")
    found["runs"] += runs
    save(found | more, path)
    return found


def test_runs_of_two_revisions_are_told_apart(tmp_path, measured_by):
    path = tmp_path / "some.json"
    found = add(path, {"seconds": 1}, {"seconds": 2})
    found["runs"].append({"seconds": float("nan")})
    save(found, path)
    assert without_minutes(path) == [OLD | {"runs": "0-2"}]
    measured_by(NEW)
    add(path, {"seconds": 4}, pace=[{"times": 2}])
    measured_by(OLD)
    add(path, {"seconds": 5})
    assert without_minutes(path) == [OLD | {"runs": "0-2, 4"}, NEW | {"runs": "3", "pace": "0"}]


def test_a_run_that_is_completed_has_both_origins_and_one_that_is_replaced_the_new(tmp_path, measured_by):
    path = tmp_path / "some.json"
    add(path, {"seconds": 1}, {"seconds": 2})
    measured_by(NEW)
    found = resume(path, "cpu")
    found["runs"][0]["memory"] = 3
    found["runs"][1] = {"seconds": 9}
    save(found, path)
    assert without_minutes(path) == [OLD | {"runs": "0"}, NEW | {"runs": "0-1"}]
    found["runs"][0] = {"seconds": 8}
    save(found, path)
    assert without_minutes(path) == [NEW | {"runs": "0-1"}]


def test_figures_that_are_older_than_this_stay_of_an_unknown_revision(tmp_path, measured_by):
    path = tmp_path / "some.json"
    old = resume(path, "cpu") | {"runs": [{"seconds": 1}, {"seconds": 2}], "pace": [{"times": 2}]}
    del old["measured"]
    path.write_text(json.dumps(old))
    save(resume(path, "cpu"), path)  # nothing new
    assert "measured" not in json.loads(path.read_text())
    add(path, {"seconds": 3})
    assert without_minutes(path) == [{"revision": None, "runs": "0-1", "pace": "0"}, OLD | {"runs": "2"}]
    found = resume(path, "cpu", anew=True)
    save(found | {"runs": [{"seconds": 1}]}, path)  # the same figure, measured again
    assert without_minutes(path) == [OLD | {"runs": "0"}]


def test_nothing_new_changes_nothing(tmp_path, measured_by):
    path = tmp_path / "some.json"
    add(path, {"seconds": 1})
    before = path.read_text()
    measured_by(NEW)
    save(resume(path, "cpu"), path)
    assert path.read_text() == before


def test_without_git_the_revision_is_null_and_the_files_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for one in (origin.revision, origin.here):
        one.cache_clear()
    try:
        found = origin.here("speed", "speed", True)
    finally:
        origin.revision.cache_clear()
        origin.here.cache_clear()
    assert found["revision"] is found["clean"] is None
    assert len(found["files"]) == 12 and found["torch"] and "transformers" not in found


def test_a_copy_inside_another_repository_has_no_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    monkeypatch.setattr(origin, "_git", lambda *words: "" if words[0] == "ls-files" else "of the other")
    assert origin.revision.__wrapped__() == (None, None)


def test_the_command_of_a_record_does_not_name_the_folder_of_its_results(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/speed.py", "--results", "here", "--results=there", "--default-only"])
    assert record.command() == "python benchmarks/speed.py --default-only"
