"""What every command of `shtopk` has in common, and the small ones."""

import os
import subprocess
import sys
from importlib import import_module
from unittest.mock import Mock

import pytest

from shtopk.commands import COMMANDS, main


def test_help_names_every_command(shtopk):
    for words in ([], ["--help"]):
        assert all(f"shtopk {name} " in shtopk(*words) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_line_by_line(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"usage: shtopk {name}")
    examples = [line for line in import_module(f"shtopk.commands.{name}").__doc__.splitlines() if "shtopk" in line]
    assert set(examples) <= set(shown)


def test_an_unknown_command_is_refused(capsys):
    assert main(["trian"]) == 2
    assert "expected a command of train, evaluate, " in capsys.readouterr().err


def test_ctrl_c_while_a_command_begins_is_told_in_a_line(capsys, monkeypatch):
    monkeypatch.setattr("shtopk.commands.configs.main", Mock(side_effect=KeyboardInterrupt))
    assert main(["configs"]) == 130
    assert capsys.readouterr().err == "shtopk configs: stopped\n"


@pytest.mark.parametrize(("words", "named"), [
    (["evaluate", "run", "--k", "4"], "shtopk sweep CHECKPOINT --k"),
    (["predict", "run", "new.csv", "--k", "4"], "shtopk sweep CHECKPOINT --k"),
    (["evaluate", "run", "new.csv"], "--test_file"),
    (["train", "new.jsonl"], "--train_file"),
])  # fmt: skip
def test_words_that_belong_elsewhere_are_refused_with_where(words, named, refused):
    assert named in refused(*words)


def test_configurations_are_listed_printed_and_copied_but_never_over_another_file(shtopk, refused, tmp_path):
    assert "BBC News" in shtopk("configs")
    assert "head_learning_rate" in shtopk("configs", "bbc")
    shtopk("configs", "bbc.yaml", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == shtopk("configs", "bbc")
    assert "exists" in refused("configs", "rfc", tmp_path / "mine.yaml")
    assert "accelerate launch --config_file" in shtopk("configs", "accelerate/fsdp", tmp_path / "fsdp.yaml")
    assert "expected a configuration of" in refused("configs", "bcb")


def test_the_environment_is_told(shtopk):
    assert {"shtopk", "torch", "device"} <= {line.split()[0] for line in shtopk("env").splitlines()}


@pytest.mark.parametrize("words", [["--help"], ["train", "--k=0"], ["evaluate", "/none"], ["sweep", "/none"]])
def test_what_takes_long_to_import_is_not_imported_to_help_or_to_refuse(words):
    code = f"""
import sys
from shtopk.commands import main
try:
    main({words})
except SystemExit:
    pass
print(*sorted({{"datasets", "evaluate", "sklearn", "accelerate", "matplotlib", "pandas"}} & set(sys.modules)))
print("transformers.modeling_utils" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-2:] == ["", "False"]


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "sweep", "compare", "push", "show", "configs"])
def test_with_torch_alone_a_command_says_what_to_install(name, tmp_path):
    code = f"""
import sys
for missing in ("transformers", "yaml", "datasets", "accelerate", "pyarrow"):
    sys.modules[missing] = None
from shtopk.commands import main
sys.exit(main({[name, str(tmp_path), __file__]}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert "pip install 'shtopk[train]'" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(("closed", "code"), [("| true", 141), (">&-", 0)])
def test_help_that_nobody_reads_ends_in_silence(closed, code):
    command = f"sleep 0.2; {sys.executable} -m shtopk --help {closed}; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if closed == "| true":  # which has to end first
        command = f"({command.split(closed)[0].replace('sleep 0.2', 'sleep 0.5')}) | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stderr) == (code, "")


def test_with_torch_alone_the_environment_is_told():
    code = "import sys; sys.modules['transformers'] = None; from shtopk.commands import main; sys.exit(main(['env']))"
    assert "torch" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
