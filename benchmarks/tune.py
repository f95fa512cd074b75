"""Choose each variant's temperatures and learning rate: validation accuracy on needle, seeds the tables do not use.

python benchmarks/tune.py [--workers 2] [--device cuda]

Writes benchmarks/results/tune-needle.json and prints the best setting of each variant; variants.py holds them.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch
import torch.multiprocessing as mp
from compare import RESULTS, Needle
from needle import Classifier, fit, predict
from tqdm.auto import tqdm
from variants import Variant

K, SEEDS, LEARNING_RATES = (16,), (10,), (1e-3, 3e-3)


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
    settings = [Variant("softmax attention, k queries", kind="attention")]
    for name, (common, pairs) in annealed.items():
        settings += [Variant(f"{name}, annealed", {**common, "temperature": end, "initial_temperature": start})
                     for end, start in pairs]  # fmt: skip
    for name, (common, temperatures) in fixed.items():
        settings += [Variant(name, {**common, "temperature": t}) for t in temperatures]
    return [dataclasses.replace(v, scorer_learning_rate=lr) for v in settings for lr in LEARNING_RATES]


def work(rank: int, workers: int, device: str, queue) -> None:
    needle = Needle(torch.device(device))
    jobs = list(itertools.product(grid(), K, SEEDS))[rank::workers]
    for variant, k, seed in jobs:
        torch.manual_seed(seed)
        train = needle.splits["train"]
        classifier = Classifier(train.hidden_states.shape[-1], needle.classes, k, variant).to(device)
        fit(classifier, train, seed, variant.scorer_learning_rate)
        predictions, share = predict(classifier, needle.splits["validation"])
        accuracy = (predictions == needle.splits["validation"].labels).float().mean().item()
        queue.put({"variant": variant.name, **variant.pooling, "scorer_learning_rate": variant.scorer_learning_rate,
                   "k": k, "seed": seed, "accuracy": accuracy, "evidence_share": share})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    Needle(torch.device(arguments.device))  # fills the cache of token vectors before the workers want it
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=work, args=(rank, arguments.workers, arguments.device, queue))
                 for rank in range(arguments.workers)]  # fmt: skip
    for process in processes:
        process.start()
    runs = [queue.get() for _ in tqdm(range(len(grid()) * len(K) * len(SEEDS)))]
    for process in processes:
        process.join()
    (arguments.results / "tune-needle.json").write_text(json.dumps(runs, indent=1) + "\n")
    settings: dict[tuple, list] = {}
    for run in runs:
        key = tuple(
            (name, value) for name, value in run.items() if name not in ("k", "seed", "accuracy", "evidence_share")
        )
        settings.setdefault(key, []).append(run)
    ranked = sorted(settings.items(), key=lambda item: -statistics.mean(run["accuracy"] for run in item[1]))
    for key, found in sorted(ranked, key=lambda item: item[0][0][1]):
        accuracy, share = (statistics.mean(run[name] for run in found) for name in ("accuracy", "evidence_share"))
        print(f"{accuracy:.3f} evidence {share:.3f} {dict(key)}")


if __name__ == "__main__":
    main()
