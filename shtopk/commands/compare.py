"""Train with different ways to pool, side by side, on the same data with the same budget.

shtopk compare --train_file mine.jsonl --operators successive_halving,hard_gated,first,none --k 8,32 --seeds 0,1,2

The three options are lists with commas between. Four ways to pool are no operators: random (a frozen scorer), strided
(every (n/k)-th token), first (the first k tokens) and none (all tokens are kept, whatever k). All other fields are
those of `shtopk train` and hold for every training; a --config file may have k, too. The trainings run one after the
other. If they are stopped, the same command goes on. compare.json in the output folder grows with each training, and
the table, compare.md, comes at the end. What the trainings measured is kept, their models are not.

Of a language model, --k_by_layer 8:256 names the layer before which prompts are pooled, and --k to how many vectors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shtopk.tasks import DataArguments, get_task
from shtopk.tasks.arguments import FILE_FIELDS
from shtopk.tasks.files import with_completions_found
from shtopk.training.aliases import with_our_names
from shtopk.training.arguments import TrainArguments
from shtopk.training.command_line import Parser, config_of, numbers, parse
from shtopk.training.command_line import read as fields_of
from shtopk.training.console import command, refuse, refusing, speaking_as, tell
from shtopk.training.ending import one_line_at_the_end
from shtopk.training.model_arguments import ModelArguments

if TYPE_CHECKING:  # it takes long to import
    from shtopk.training.comparison import Planned

VARIED = ("operator", "scorer", "freeze_scorer", "seed", "resume")  # fields that the comparison gives every training
CURE = "differs from training to training here; leave it out, or see --operators, --k and --seeds"
OWN = {"k": "8,32", "output_dir": "runs/compare"}  # defaults of fields that mean something else here
GROUPS = (DataArguments, ModelArguments, TrainArguments)


def main(argv: list[str]) -> None:
    with speaking_as("shtopk compare"), one_line_at_the_end(argv, trains=False):
        own, words = read(argv)
        take_from_config(own, words)
        from shtopk.training.comparison import WAYS, compare, planned, table

        with refusing(ValueError):
            ks, seeds = numbers(own.k, "k"), numbers(own.seeds, "seeds")
        if broken := [seed for seed in seeds if not seed.isdigit()]:
            refuse(f"expected seeds to be whole numbers, got {broken[0]}")
        ways = [way.strip() for way in own.operators.split(",") if way.strip()]
        if unknown := [way for way in ways if way not in WAYS]:
            refuse(f"expected operators of {', '.join(WAYS)}; got {', '.join(unknown)}")
        if not (ways and ks and seeds):
            refuse("expected at least one operator, one k and one seed")
        plan = planned(ways, ks, list(dict.fromkeys(map(int, seeds))), layer_of_prompts(words))
        for one in plan:  # so that what is impossible is refused before anything is trained
            given = parse([*words, *one.words, f"--output_dir={own.output_dir}"], __doc__, writes=False)
            if given.training.dry_run or given.training.push_to_hub:
                refuse("dry_run and push_to_hub are for a single training; leave them out")
            if one.way == "none" and given.model.window_k is not None:
                refuse("none keeps every token, and window_k does not; leave out one of them")
        folder, overwrite = Path(own.output_dir), own.overwrite == "true"
        if overwrite:  # what cannot be read is refused before anything is removed
            with refusing(ValueError):
                get_task(given.data).load(given.data)
        record = begin(folder, shared(words), overwrite)
        for one in plan if overwrite else []:
            shutil.rmtree(folder / one.folder, ignore_errors=True)
        record["command"] = command(argv)
        try:
            for one in compare(plan, words, folder, record, fine_tune):
                done = len(runs_of(plan, record))
                print(f"{one.folder}: done, {done} of {len(plan)}", flush=True)
        except ChildProcessError as error:
            tell(f"a training failed: {error}")
            sys.exit(1)
        over = f"seed {own.seeds}" if len(seeds) == 1 else f"mean ± standard deviation over seeds {own.seeds}"
        page = f"{table(runs_of(plan, record), ways)}\n\nTest split, {over}."
        (folder / "compare.md").write_text(f"{page} `{record['command']}`\n", encoding="utf-8")
        print(page)


def fine_tune(words: list[str], folder: str) -> dict[str, float]:
    """Train with the words of a command line into a folder, in a process of its own. Returns the run's figures."""
    import torch

    from shtopk.commands.train import train
    from shtopk.training.comparison import SCORES, SPEEDS
    from shtopk.training.memory import peak_memory_of

    begun = (Path(folder) / "history.jsonl").exists()  # then the peak may lie behind
    memory = peak_memory_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with speaking_as("shtopk compare"):
        results = train([*words, f"--output_dir={folder}"], again="give the same command again")
    found = {key: results[f"test_{key}"] for key in (*SCORES, *SPEEDS) if f"test_{key}" in results}
    found["train_seconds"] = results["train_runtime"]
    return found if memory is None or begun else found | {"peak_mib": memory.read()}


def read(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The comparison's own options, and the words that every training gets."""
    parser = Parser((), add_help=False)
    parser.add_argument("--operators", default="successive_halving,iterative,hard_gated,first,none")
    parser.add_argument("--k")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output_dir", "--output-dir")
    parser.add_argument("--overwrite", nargs="?", const="true", default="false", choices=("true", "false"))
    with refusing(ValueError):
        own, words = parser.parse_known_args(with_our_names(argv))
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        if name in VARIED:
            refuse(f"{name} {CURE}")
    return own, words


def take_from_config(own: argparse.Namespace, words: list[str]) -> None:
    """Take k from a YAML file, unless the command line has it, and refuse there another value of a field than its
    default where the comparison is to give it. What names a default, as arguments.yaml does, changes nothing.

    Its output_dir is the folder of one training: where it is not that of the comparison, a line on stderr says so.
    """
    _, found = fields_of(words, GROUPS, __doc__, defaults=OWN)
    _, model, training = found
    for group in found:
        for name, default in vars(type(group)()).items():
            if name in VARIED and getattr(group, name) != default:
                refuse(f"{name} in {config_of(words)} {CURE}")
    if training.overwrite:
        refuse(f"overwrite in {config_of(words)} is for a single training; give --overwrite true on the command line")
    own.k = own.k or model.k
    if own.output_dir is None:
        own.output_dir = OWN["output_dir"]
        if training.output_dir != own.output_dir:
            tell(f"output_dir in {config_of(words)} is for a single training; the comparison writes into "
                 f"{own.output_dir}, or where --output_dir says")  # fmt: skip


def layer_of_prompts(words: list[str]) -> str | None:
    """The layer before which a language model's prompts are pooled, as --k_by_layer names it; None: another model."""
    with refusing(ValueError):
        _, (data, model, _) = fields_of(words, GROUPS, __doc__)
        if get_task(with_completions_found(data)).target != "completion":
            return None
        layers = list(model.shares_or_counts or {})
    if len(layers) != 1:
        refuse(f"expected k_by_layer to name the one layer before which prompts are pooled, such as 8:256, got "
               f"{model.k_by_layer or 'none'}")  # fmt: skip
    return layers[0]


def shared(words: list[str]) -> dict[str, Any]:
    """What all trainings of a folder have in common: fields that are not left at their defaults, and of each file of
    data its SHA-256.
    """
    _, groups = fields_of(words, GROUPS, __doc__)
    given = {name: str(getattr(group, name)) for group in groups for name, default in vars(type(group)()).items()
             if getattr(group, name) != default and name not in VARIED}  # fmt: skip
    paths = {name: Path(given.pop(name)) for name in FILE_FIELDS if name in given}
    return given | {name: hash_of_file(path) for name, path in paths.items() if path.is_file()}


def hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def runs_of(plan: Sequence[Planned], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a record that are planned; it may hold others, of an earlier command."""
    wanted = {(one.way, one.k, one.seed) for one in plan}
    return [run for run in record["runs"] if (run["way"], run["k"], run["seed"]) in wanted]


def begin(folder: Path, now: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """The record of a folder, to go on with. Refused if it is of other trainings.

    Args:
        now: see `shared`.
    """
    path = folder / "compare.json"
    if overwrite or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return {"shared": now, "runs": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before = record["shared"]
        others = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    except (ValueError, LookupError, TypeError, AttributeError):
        refuse(f"{path} is no record of a comparison; name another output_dir, or replace it with --overwrite true")
    if others:
        what = ", ".join(f"the content of {name}" if name in FILE_FIELDS else
                         f"{name}, which was {before.get(name, 'not given')} and is {now.get(name, 'not given')}"
                         for name in others)  # fmt: skip
        refuse(f"{path} is of trainings with other settings: {what}; name another output_dir, or replace them with "
               f"--overwrite true")  # fmt: skip
    return record
