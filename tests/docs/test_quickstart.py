"""The first things that a newcomer does, with the real encoder and data: README and quickstart print what they say."""

import subprocess
import sys

import pytest
from code_blocks import ROOT, fenced, page, run
from transcripts import transcript, typed

README = ROOT / "README.md"


def check_what_was_printed(printed, names):
    accuracy, topic = (line for line in printed.splitlines() if line.startswith("accuracy") or line == "sports")
    assert float(accuracy.split()[1]) == pytest.approx(0.97, abs=0.03)  # another processor may round otherwise
    assert names["out"].assignment.positions.shape[0] == 1


def test_the_code_of_the_readme_is_that_of_the_quickstart():
    """Where it runs. Here: the same lines in the same order, and none that it needs is left out."""
    shown, run_there = (lines_of(path) for path in (README, page("quickstart")))
    assert len(shown) >= 15
    rest = iter(run_there)
    assert [line for line in shown if line not in rest] == []  # `in` goes on from where the last one was found
    checked = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "-"]
    found = subprocess.run(checked, input="\n".join(shown), capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def lines_of(path):
    code = "".join(block.code for block in fenced(path) if block.language == "python")
    return [line for line in code.splitlines() if line.strip()]


def test_the_commands_of_the_readme_are_those_of_the_quickstart():
    """Where they run, one after the other."""
    shown, run_there = (dict(commands_of(path)) for path in (README, page("quickstart")))
    assert len(shown) >= 5
    for command, expected in shown.items():
        assert set(expected.splitlines()) <= {*run_there[command].splitlines(), "..."}


def commands_of(path):
    for block in fenced(path):
        if block.language == "console":
            yield from typed(block.code)


@pytest.mark.slow
def test_the_quickstart_works_from_top_to_bottom(here, capsys):
    names = transcript(page("quickstart"), here)
    check_what_was_printed(capsys.readouterr().out, names)
    assert names["model"].bert.encoder.pooling  # as load_pooled brought it back
    assert (here / "runs" / "sweep" / "sweep.png").is_file()


@pytest.mark.parametrize("path", [README, page("quickstart"), page("operators")], ids=lambda path: path.name)
def test_the_lines_typed_at_the_prompt_print_what_stands_there(path):
    assert run([block.code for block in fenced(path) if block.language == "pycon"])
