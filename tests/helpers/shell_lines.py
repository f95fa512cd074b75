"""Commands of a page that no test runs, checked up to the moment when they would read data or learn."""

import contextlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from code_blocks import ROOT
from torch.distributed.run import get_args_parser

import shtopk.models
import shtopk.training
from shtopk.commands import main
from shtopk.training import comparison, sweep, trained

READY = (  # what each command calls first once its arguments are checked
    (shtopk.training, "Run"),
    (trained, "Trained"),
    (sweep, "rows_of"),
    (comparison, "compare"),
    (shtopk.models, "load_checkpoint"),
)
HARMLESS = ("cat", "head", "cp", "cd", "mkdir", "git", "hf", "export", "tensorboard")  # nothing of ours to check
ROW = dict.fromkeys(("text", "body", "label", "topic", "summary", "gist", "id", "url"), "a")


class Accepted(BaseException):
    """The arguments are in order."""


def check_lines(code: str, folder: Path) -> int:
    """Raise where a line of a `sh` block would be refused; the number of commands checked.

    A folder stands for the clone: what a command names as files, checkpoints and configurations of runs is there.
    """
    for name in ("configs", "benchmarks", "tasks", "train.py", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data" / "rfc").mkdir(parents=True)
    for kind in ("json", "txt"):
        (folder / "data" / "rfc" / f"rfc1.{kind}").touch()
    count = 0
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for module, name in READY:
            patch.setattr(module, name, _accept)
        for words in commands(code):
            try:
                check(words)
            except SystemExit as stop:
                if stop.code:
                    raise AssertionError(f"refused: {shlex.join(words)}") from None
            count += 1
    return count


def _accept(*arguments, **options):
    raise Accepted


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a block, as words; comments and settings of the environment before a command are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r" (?:&&|\||;) ", re.sub(r"(^|\s)#.*", "", line)):
            words = shlex.split(part)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words


def check(words: list[str]) -> None:
    """Raise AssertionError or SystemExit for a command that cannot be."""
    name, *rest = words
    if name == "shtopk":
        check_shtopk(rest)
    elif name in ("accelerate", "torchrun"):
        check_launch(name, rest)
    elif name == "python":
        check_python(rest)
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        asked = {word for word in rest if "=" not in word}
        assert asked <= set(targets), f"make has no target {asked - set(targets)}"
    elif name == "pip":
        check_pip(rest)
    else:
        assert name in HARMLESS, f"a command that no test knows: {name}"


def check_launch(name: str, words: list[str]) -> None:
    if name == "accelerate":
        assert words[0] == "launch"
        given = launch_command_parser().parse_args(words[1:])
        assert given.config_file is None or Path(given.config_file).is_file(), given.config_file
    else:
        given = get_args_parser().parse_args(words)
    if given.module:
        check_python(["-m", given.training_script, *given.training_script_args])
    else:
        check_python([given.training_script, *given.training_script_args])


def check_python(words: list[str]) -> None:
    script, *rest = words
    if script == "train.py":
        check_shtopk(["train", *rest])
    elif script == "-m":
        check_shtopk(rest[1:]) if rest[0] == "shtopk" else find_spec(rest[0]) or pytest.fail(f"no module {rest[0]}")
    elif script == "-c":
        compile(rest[0], "<python -c>", "exec")
    else:
        assert (ROOT / script).is_file(), script


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[1:]:
        if extras := re.fullmatch(r"(?:shtopk|\.)\[(.*)\]", word):
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"]), word


def check_shtopk(words: list[str]) -> None:
    """Run one of our commands, which stops where it would begin."""
    name, *rest = words
    make_what_is_named(name, rest)
    before = sys.stdin
    try:
        with open(__file__, encoding="utf-8") as sys.stdin:
            code = main(words)
    except Accepted:
        return
    finally:
        sys.stdin = before
    assert name in ("configs", "env") and code == 0, f"shtopk {shlex.join(words)} ended with {code}"


def make_what_is_named(name: str, words: list[str]) -> None:
    """The files, and the checkpoint, that a command is given."""
    before = ""
    for word in words:
        path = Path(word)
        if path.suffix in (".jsonl", ".json", ".csv", ".parquet", ".txt") and before != "--output":
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = {".csv": f"{','.join(ROW)}\n{','.join(ROW.values())}\n"}
            path.write_text(rows.get(path.suffix, json.dumps(ROW) + "\n"))
        if before in ("--config", "--resume") and word.startswith("runs/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("task: bbc\n")
        before = word
    if name in ("evaluate", "sweep", "predict", "show"):
        checkpoint = Path(words[0])
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "arguments.yaml").write_text("task: bbc\n")
