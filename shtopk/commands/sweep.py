"""How small may k be? One checkpoint at many settings of its pooling, without training.

shtopk sweep runs/latest --k 4,8,16,32                          on the test split that it was trained beside
shtopk sweep runs/latest --test_file new.jsonl --k 4,8,16,32,64 --operator successive_halving,hard

Every k is evaluated with every operator and temperature given; the model without pooling comes last. It prints a
table, and the smallest k that is as good as the best, as far as these documents tell. It writes sweep.json, sweep.md
and sweep.png (quality against speed) into the output folder. The checkpoint may be of any kind that `shtopk evaluate`
takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from shtopk.operators import OPERATORS
from shtopk.options import PoolingOptions
from shtopk.tasks.arguments import option
from shtopk.training.arguments import EvaluationArguments
from shtopk.training.command_line import numbers, of_checkpoint
from shtopk.training.console import command, is_first, refuse, refusing, speaking_as
from shtopk.training.ending import one_line_at_the_end
from shtopk.training.model_arguments import share_or_count
from shtopk.training.whole import write_whole


@dataclass
class SweepArguments(EvaluationArguments):
    _argument_group_name: ClassVar[str] = "sweep"
    k: str = option("4,8,16,32,64", "vectors to keep, counts or shares, with commas between")
    operator: str | None = option(None, f"from {', '.join(OPERATORS)}, with commas between; by default as trained")
    temperature: str | None = option(None, "> 0, with commas between; by default as trained, or the operator's")
    output_dir: str = option("runs/sweep", "folder of the table and the picture")


def main(argv: list[str]) -> None:
    with speaking_as("shtopk sweep"), one_line_at_the_end(argv, trains=False):
        checkpoint, data, arguments = of_checkpoint(argv, SweepArguments, __doc__)
        ks, operators, temperatures = values_of(arguments)
        from shtopk.training.sweep import draw, rows_of, settings_of, table, verdict  # which take long to import

        folder, rows = Path(arguments.output_dir), []
        folder.mkdir(parents=True, exist_ok=True)
        for row, metric, results in rows_of(checkpoint, data, arguments, settings_of(ks, operators, temperatures)):
            rows.append(row)
            shown = [{name: value for name, value in row.items() if name != "scores"} for row in rows]
            record = {"command": command(argv), "metric": metric, "settings": shown} | results
            if is_first():
                write_whole(folder / "sweep.json", json.dumps(record, indent=1) + "\n")
        if not is_first():
            return
        page = f"{table(rows, metric)}\n\n{verdict(rows, metric)}"
        (folder / "sweep.md").write_text(f"{page}\n\n`{command(argv)}`\n", encoding="utf-8")
        draw(rows, metric, folder / "sweep.png")
        print(f"{page}\nSee {folder / 'sweep.png'}.")


def values_of(arguments: SweepArguments) -> tuple[list[int | float], list[str], list[float]]:
    """The values of k, operators and temperatures. Impossible ones are refused."""
    operators = [name.strip() for name in (arguments.operator or "").split(",") if name.strip()]
    with refusing(ValueError):
        ks: list[Any] = [share_or_count(word, "k") for word in numbers(arguments.k, "k")]
        temperatures = [float(word) for word in numbers(arguments.temperature or "", "temperature")]
        for operator in operators or ["successive_halving"]:
            for temperature in temperatures or (None,):
                for k in ks:
                    PoolingOptions(operator=operator, temperature=temperature).check(k)
    if not ks:
        refuse("expected values of k with commas between, got none")
    # 1 is a vector, and 1.0 all of them
    return [k for _, k in dict.fromkeys((type(k), k) for k in ks)], operators, temperatures
