"""The configurations that come with shtopk, for `shtopk train --config`.

shtopk configs                 lists them
shtopk configs bbc             prints one
shtopk configs bbc mine.yaml   copies it, to be changed
"""

from __future__ import annotations

import argparse
import re
import shlex
from importlib.resources import files
from itertools import takewhile
from pathlib import Path

from shtopk.training.console import refuse, speaking_as


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "shtopk configs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="a configuration; without it all are listed")
    parser.add_argument("copy", nargs="?", type=Path, help="file to write, which must not exist")
    arguments = parser.parse_args(argv)
    folder = Path(str(files("shtopk.configs")))
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    if arguments.name is None:
        for name, path in known.items():
            print(f"{name:24}{_first_sentence(path)}")
        return
    with speaking_as("shtopk configs"):
        name = arguments.name.removesuffix(".yaml")
        if name not in known:
            refuse(f"expected a configuration of {', '.join(known)}; got {arguments.name!r}")
        text = known[name].read_text(encoding="utf-8")
        if arguments.copy is None:
            print(text, end="")
            return
        try:
            with arguments.copy.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            refuse(f"{arguments.copy} exists; name another file")
        except OSError as error:
            refuse(f"cannot write {arguments.copy}: {error.strerror}")
    print(f"{arguments.copy}: {_use(name, str(arguments.copy))}")


def _use(name: str, copy: str) -> str:
    """The command that takes a configuration: of a training, or of how accelerate launches one."""
    if name.startswith("accelerate/"):
        return f"{shlex.join(['accelerate', 'launch', '--config_file', copy])} -m shtopk train ..."
    return shlex.join(["shtopk", "train", "--config", copy])


def _first_sentence(path: Path) -> str:
    """The first sentence of the comment at the top of a file."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r"[.;] ", " ".join(line.lstrip("# ") for line in lines) + " ")[0]
