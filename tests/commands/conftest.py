"""Commands of `shtopk`, run inside this process."""

import json

import pytest

from shtopk.commands import main


@pytest.fixture
def shtopk(capsys):
    """Run a command that succeeds; what it printed."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """Run a command that is refused; the one line that it says after its name."""

    def run(*words, code=2):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert stop.value.code == code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shtopk")]
        assert line.startswith(f"shtopk {words[0]}: ")
        return line.removeprefix(f"shtopk {words[0]}: ")

    return run


@pytest.fixture
def rows(tmp_path):
    """Write rows into a file of JSON lines; its path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def evaluate(shtopk, tmp_path):
    """The results of an evaluation, and what was printed."""

    def run(*words):
        out = f"--output_dir={tmp_path / 'out'}"
        shown = shtopk("evaluate", *words, out, "--overwrite=true", "--mixed_precision=no")
        return json.loads((tmp_path / "out" / "results.json").read_text()), shown

    return run
