"""The table of all results names every one, and how each is made."""

import argparse
import importlib
import re
import shlex

import figures
import origin
import pictures
import pytest
from parts import PARTS, part_of
from reached import REGISTRY
from record import RESULTS
from sources import ROOT

import shtopk.training

COMMANDS = [command for part in PARTS for command in part.commands]
FILES = [file for part in PARTS for file in part.files]


class Accepted(Exception):
    """The arguments are in order."""


def test_every_result_is_named_once():
    found = {path.relative_to(RESULTS).with_suffix("").as_posix() for path in RESULTS.rglob("*.json")}
    assert found <= set(FILES), "a row in benchmarks/parts.py says how it is made"
    assert len(FILES) == len(set(FILES))
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert {read for part in PARTS for read in part.reads} <= set(FILES)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_part_is_accepted(command, monkeypatch, tmp_path):
    script, *words = shlex.split(command)
    module = importlib.import_module(script.removesuffix(".py"))
    parse = argparse.ArgumentParser.parse_args

    def accept(self, *given):
        raise Accepted(parse(self, *given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)
    monkeypatch.setattr("sys.argv", [script, f"--results={tmp_path}", *words])
    with pytest.raises(Accepted) as accepted:
        module.main()
    monkeypatch.undo()
    if script == "summarizers.py" and "rfc" not in command:  # whose texts are not here
        monkeypatch.chdir(ROOT)
        of_train = accepted.value.args[0].words
        assert shtopk.training.parse([*of_train, f"--output_dir={tmp_path / 'run'}"], writes=False)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_that_reads_a_task_says_which(part):
    reached = [origin.reach(part.script(file), file.split("/")[-1], part.needs != "gpu") for file in part.files]
    assert None not in reached, "its script is not there"
    assert any(REGISTRY in one.names for one in reached) == bool(part.tasks)


def test_those_that_the_readme_shows_come_first(monkeypatch, tmp_path):
    shown = set()
    read, drawn = figures.record, pictures.read
    monkeypatch.setattr(figures, "record", lambda name: shown.add(name) or read(name))
    monkeypatch.setattr(pictures, "read", lambda path: shown.add(path.stem) or drawn(path))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"<!-- table: (\S+) -->", text):
        figures.TABLES[name]()
    for name in re.findall(r"<!--= (\S+) -->", text):
        figures.FIGURES[name]()
    for name in re.findall(r"docs/pictures/(\w+)\.svg", text):
        pictures.DRAWN[name](RESULTS, tmp_path / "a.svg")
    assert {part.name for part in PARTS if part.readme} == {part_of(name.split("/")[-1]).name for name in shown}
    assert [part.readme for part in PARTS] == sorted((part.readme for part in PARTS), reverse=True)
