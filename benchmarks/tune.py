"""Choose each variant's temperatures and learning rate: validation accuracy on needle, a seed the tables do not use.

python benchmarks/tune.py [--device cuda]

Writes benchmarks/results/tune-needle.json after every training (an interrupted run goes on where it stopped) and
prints all settings, the best of each variant first; variants.py holds the choice.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch
from compare import RESULTS, Frozen
from tqdm.auto import tqdm
from variants import Variant

K, SEED, LEARNING_RATES = 8, 10, (3e-3, 1e-2)


def grid() -> list[Variant]:
    annealed = {
        "successive halving": ({}, [(0.0625, 1.0), (0.0625, 4.0), (0.0625, 16.0), (0.25, 4.0)]),
        "iterative top-k": ({"operator": "iterative"}, [(0.01, 10.0), (0.01, 1.0)]),
    }
    fixed = {
        "successive halving, fixed": ({}, (0.0625, 1.0)),
        "iterative top-k, fixed": ({"operator": "iterative"}, (0.01, 0.1, 1.0)),
        "hard top-k, gated": ({"operator": "hard_gated"}, (0.5, 1.0, 2.0)),
        "hard top-k, straight-through": ({"operator": "hard_straight_through"}, (0.5, 1.0)),
    }
    found = [Variant("softmax attention, k queries", kind="attention")]
    for name, (common, pairs) in annealed.items():
        found += [Variant(f"{name}, annealed", {**common, "temperature": end, "initial_temperature": start})
                     for end, start in pairs]  # fmt: skip
    for name, (common, temperatures) in fixed.items():
        found += [Variant(name, {**common, "temperature": t}) for t in temperatures]
    return [dataclasses.replace(v, scorer_learning_rate=lr) for v in found for lr in LEARNING_RATES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path = arguments.results / "tune-needle.json"
    arguments.results.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text()) if path.exists() else []
    plan = [variant for variant in grid() if settings(variant) not in [run["settings"] for run in runs]]
    frozen = Frozen("needle", torch.device(arguments.device)) if plan else None
    for variant in tqdm(plan):
        runs.append({"settings": settings(variant), **frozen(variant, K, SEED, split="validation")})
        path.write_text(json.dumps(runs, indent=1) + "\n")
    for run in sorted(runs, key=lambda run: (run["settings"]["variant"], -run["accuracy"], -run["evidence_share"])):
        print(f"accuracy {run['accuracy']:.3f}, evidence {run['evidence_share']:.3f}  {run['settings']}")


def settings(variant: Variant) -> dict:
    return {"variant": variant.name, **variant.pooling, "scorer_learning_rate": variant.scorer_learning_rate}


if __name__ == "__main__":
    main()
