"""What a release consists of beside the code: versions, the citation, workflows, templates."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import shtopk

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BOUNDED = ("train", "retrieval")  # what users install; `make versions` runs the oldest of all that these allow
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path: str | Path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_the_version_stands_in_one_place_and_the_other_files_say_the_same():
    assert "version" in PROJECT["dynamic"]
    assert read("CITATION.cff")["version"] == shtopk.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == shtopk.__version__


def test_every_package_that_users_install_has_a_lower_bound():
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(package for extra in BOUNDED for package in extras[extra])]
    assert [package for package in asked if not re.fullmatch(r"[\w-]+>=[\d.]+", package)] == []


def test_the_citation_is_one():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["license"] == PROJECT["license"]
    for work in [citation, *citation["references"]]:
        assert {"title", "authors"} <= set(work)
        assert all("name" in author or {"family-names", "given-names"} <= set(author) for author in work["authors"])
    (paper,) = citation["references"]
    assert paper["doi"] in (ROOT / "README.md").read_text(encoding="utf-8")
    (preprint,) = paper["identifiers"]
    assert preprint["value"] in (ROOT / "shtopk/operators/successive_halving.py").read_text(encoding="utf-8")


@every_workflow
def test_a_workflow_calls_targets_and_runs_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z-]+)", " ".join(step.get("run", "") for step in steps(path))))
    assert called <= targets
    script = (ROOT / "tests/versions.sh").read_text(encoding="utf-8")
    matrices = [job.get("strategy", {}).get("matrix", {}) for job in read(path)["jobs"].values()]
    runs = {run for matrix in matrices for run in matrix.get("run", [])}
    assert all(re.search(rf"[\[|]{run}[|\]]", script) for run in runs)


@every_workflow
def test_a_workflow_names_a_major_version_of_each_action_and_may_write_nothing(path):
    actions = [step["uses"] for step in steps(path) if "uses" in step]
    assert actions and all(re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", action) for action in actions)
    assert read(path)["permissions"] == {"contents": "read"}


def test_a_report_of_a_bug_asks_for_what_is_installed():
    asked = {field["id"]: field for field in read(".github/ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "shtopk env" in asked["env"]["attributes"]["label"] and asked["env"]["validations"]["required"]
    assert read(".github/ISSUE_TEMPLATE/feature.yml")["body"]
