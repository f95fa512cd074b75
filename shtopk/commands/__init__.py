"""The command `shtopk`: one file for each of its commands, imported when that command is called."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module

COMMANDS = {
    "train": "fine-tune a classifier, a summarizer or a language model that pools its tokens to k",
    "evaluate": "a checkpoint's figures on any data",
    "predict": "a checkpoint's answers to files or standard input, a line each",
    "sweep": "how small may k be? a checkpoint at many k, without training",
    "compare": "train with different ways to pool, side by side",
    "push": "upload the best model of a run to the hub, with its card",
    "show": "a page that shows which tokens of a document or a prompt were kept",
    "configs": "the configurations that come with shtopk; copies one",
    "env": "versions, device, and which backends are there",
}
HELP = "usage: shtopk COMMAND ...\n\n" + "".join(f"  shtopk {name:10}{what}\n" for name, what in COMMANDS.items())
HELP += "\nshtopk COMMAND --help says more."


def run(name: str, words: list[str]) -> int:
    """Do what a command line asks for. Returns the exit code."""
    if name in ("--help", "-h"):
        print(HELP)
        return 0
    if name == "--version":
        from shtopk import __version__

        print(f"shtopk {__version__}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        print(f"shtopk: expected a command of {', '.join(COMMANDS)}; got {name!r}{meant}", file=sys.stderr)
        return 2
    return import_module(f"shtopk.commands.{name}").main(words) or 0


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first word names. Returns the exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = run(name, words)
        if sys.stdout is not None:  # as behind >&-
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:  # where a command has begun nothing yet, as while it imports
        print(f"shtopk {name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as behind `| head`: ends in silence, as other tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except ModuleNotFoundError as error:
        if (error.name or "shtopk").split(".")[0] == "shtopk":
            raise
        print(f"shtopk: {name} needs the package {error.name}; run pip install 'shtopk[train]'", file=sys.stderr)
        return 2
