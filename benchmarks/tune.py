"""Choose each method's temperatures, then its learning rate: accuracy on needle's validation split, two spare seeds.

python benchmarks/tune.py [--device cuda]

Writes benchmarks/results/tune-needle.json after every training, so that an interrupted run goes on where it stopped,
and the settings of each method, the best first, beside it as .md; variants.py holds the choice.
"""

import dataclasses
import statistics

import torch
from compare import Frozen
from record import CommandLine, publish, resume, save
from tqdm.auto import tqdm
from variants import BOTH, MERGED, RIVAL_ROWS, Variant

K, SEEDS = 8, (10, 11)
LEARNING_RATE, OTHER_LEARNING_RATES = 1e-2, (3e-3, 3e-2)

RELATIVE = {"operator": "successive_halving_relative"}
# Method -> arguments of TopKPooling, and its temperatures: (start, end), the same twice where it is fixed.
GRID = {
    "successive halving, annealed": (BOTH, [(1, 0.0625), (4, 0.0625), (8, 0.0625), (16, 0.0625), (4, 0.25)]),
    "successive halving in both modes": (BOTH, [(0.0625, 0.0625), (0.25, 0.25), (1, 1)]),
    "select and merge in both modes": (MERGED, [(0.25, 0.25), (1, 1), (2, 2), (4, 1)]),
    "successive halving": ({}, [(0.25, 0.25), (1, 1), (2, 2), (4, 1)]),
    "successive halving, relative": (
        RELATIVE,
        [(1, 0.0625), (2, 0.0625), (4, 0.0625), (16, 0.0625), (1, 0.25), (2, 0.25), (4, 0.25)],
    ),
    "successive halving, relative, fixed": (
        RELATIVE,
        [(0.0625, 0.0625), (0.25, 0.25), (1, 1)],
    ),
    "iterative top-k": (
        {"operator": "iterative"},
        [(0.03, 0.03), (0.1, 0.1), (0.3, 0.3), (1, 1), (1, 0.1), (4, 0.1)],
    ),
    "hard top-k, gated": ({"operator": "hard_gated"}, [(0.5, 0.5), (1, 1), (2, 2)]),
    "hard top-k, straight-through": ({"operator": "hard_straight_through"}, [(0.5, 0.5), (1, 1), (2, 2)]),
}
SOFT = [(1, 0.0625), (4, 0.0625), (16, 0.0625), (0.0625, 0.0625), (0.25, 0.25), (1, 1)]
TEMPERATURES = dict.fromkeys(("dftopk", "lapsum", "perturbed"), SOFT)  # by the kind of a rival
ATTENTION = Variant("softmax attention, k queries", kind="attention")
KEYS = ("method", "start", "end", "learning_rate")  # of a run: what is tuned
UNTAUGHT = ("ward", "stretches")  # rivals with nothing to tune


def main() -> None:
    arguments = CommandLine(__doc__).parse_args()
    path = arguments.results / "tune-needle.json"
    record = resume(path, arguments.device)
    runs = record["runs"]
    frozen = Frozen("needle", torch.device(arguments.device))

    def train(variants: list[Variant]) -> None:
        plan = [(variant, seed) for seed in SEEDS for variant in variants]
        for variant, seed in tqdm(plan):
            setting = {**settings(variant), "seed": seed}
            if not any(setting.items() <= run.items() for run in runs):
                runs.append({**setting, **frozen(variant, K, seed, split="validation")})
                save(record, path)

    grid = [
        [Variant(name, {**common, "initial_temperature": start, "temperature": end}) for start, end in temperatures]
        for name, (common, temperatures) in GRID.items()
    ] + [[ATTENTION]]
    for row in RIVAL_ROWS:
        if row.kind not in UNTAUGHT:
            pairs = TEMPERATURES.get(row.kind, [(None, None)])
            poolings = [{"initial_temperature": start, "temperature": end} if end else {} for start, end in pairs]
            plain = dataclasses.replace(row, scorer_learning_rate=LEARNING_RATE)
            grid.append([dataclasses.replace(plain, pooling=row.pooling | pooling) for pooling in poolings])
    train([variant for method in grid for variant in method])
    best = [min(method, key=lambda variant: rank(score(settings(variant), runs))) for method in grid]
    train([
        dataclasses.replace(variant, scorer_learning_rate=rate) for rate in OTHER_LEARNING_RATES for variant in best
    ])  # fmt: skip
    publish(record, path, table)


def settings(variant: Variant) -> dict:
    """What is tuned, as the keys of a run."""
    return {
        "method": variant.name,
        "start": variant.pooling.get("initial_temperature"),
        "end": variant.pooling.get("temperature"),
        "learning_rate": variant.scorer_learning_rate,
    }


def score(setting: dict, runs: list[dict]) -> tuple[float, float]:
    """Mean accuracy and evidence share of a setting over its seeds."""
    found = [run for run in runs if setting.items() <= run.items()]
    return statistics.mean(run["accuracy"] for run in found), statistics.mean(run["evidence_share"] for run in found)


def rank(score: tuple[float, float]) -> float:
    """Sorts the best first: by accuracy and evidence share alike, since 150 documents settle neither."""
    return -sum(score)


def table(record: dict) -> str:
    runs = record["runs"]
    found = [dict(items) for items in dict.fromkeys(tuple((key, run[key]) for key in KEYS) for run in runs)]
    methods = [*GRID, ATTENTION.name, *(row.name for row in RIVAL_ROWS)]
    found.sort(key=lambda setting: (methods.index(setting["method"]), rank(score(setting, runs))))
    lines = [
        "| method | temperature | scorer's learning rate | accuracy | evidence among the kept |",
        "|---|---|--:|--:|--:|",
    ]
    for setting in found:
        start, end = setting["start"], setting["end"]
        temperature = "" if end is None else f"{end:g}" if start == end else f"{start:g} to {end:g}"
        accuracy, share = score(setting, runs)
        lines.append(
            f"| {setting['method']} | {temperature} | {setting['learning_rate']:g} | {accuracy:.3f} | {share:.3f} |"
        )
    return "\n".join(lines) + (
        f"\n\nneedle, validation split, k = {K}, mean over seeds {', '.join(map(str, SEEDS))}. "
        "`python benchmarks/tune.py`\n"
    )


if __name__ == "__main__":
    main()
