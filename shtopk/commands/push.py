"""Upload the best model of a finished run to the hub, with its card, as --push_to_hub does at the end of training.

shtopk push runs/bbc me/topics [--private]

Log in before with `hf auth login`. Checkpoints, answers and the paths of data stay on this machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from shtopk.training.console import refuse, refusing, speaking_as
from shtopk.training.ending import one_line_at_the_end
from shtopk.training.run_folder import CONFIG, FINISHED


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "shtopk push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder that shtopk train wrote")
    parser.add_argument("repository", help="on the hub, such as me/topics")
    parser.add_argument("--private", action="store_true", help="only you see it, if it is new")
    given = parser.parse_args(argv)
    with speaking_as("shtopk push"), one_line_at_the_end(argv, trains=False):
        for name in (FINISHED, CONFIG):  # a comparison leaves no models
            if not (given.run / name).is_file():
                refuse(f"expected the folder of a finished run with its model, found no {name} in {given.run}")
        from shtopk.training.hub import open_repository, upload

        open_repository(given.repository, private=given.private, otherwise="name another")
        with refusing(ValueError):
            print(f"uploaded to {upload(given.run, given.repository, private=given.private)}")
