"""Does one training serve every k? A classifier trained with k drawn for each update, beside one trained for each k.

python benchmarks/budgets.py [--tasks needle bbc] [--k 4 8 16 32 64 128] [--seeds 0 1 2] [--epochs 8] [--device cuda]

The encoder is frozen, and its token vectors are computed once (frozen.py). Every classifier is tested at every k, that
which draws from the smallest to the largest of them. Writes benchmarks/results/budgets-<task>.json after every
training, so that an interrupted run goes on where it stopped, and the table beside it as .md.
"""

import statistics

import torch
from compare import CACHE
from frozen import EPOCHS, Classifier, Split, fit, predict, token_vectors
from record import CommandLine, publish, resume, save
from tqdm.auto import tqdm
from variants import VARIANTS

from shtopk import tasks
from shtopk.models import default_encoder

DRAWN = "drawn"
(OURS,) = [variant for variant in VARIANTS if variant.name == "successive halving"]


def train_and_test(trained: str, ks: list[int], seed: int, train: Split, test: Split, epochs: int = EPOCHS) -> dict:
    """Accuracy, and the share of evidence among the kept tokens, at every k of a classifier.

    Args:
        trained: its k in training, or `DRAWN`.
        ks: from which a drawn k comes, and at which every classifier is tested.
    """
    torch.manual_seed(seed)
    k, k_range = (max(ks), (min(ks), max(ks))) if trained == DRAWN else (int(trained), None)
    classes = int(train.labels.max()) + 1
    classifier = Classifier(train.hidden_states.shape[-1], classes, k, OURS).to(train.labels.device)
    fit(classifier, train, seed, OURS.scorer_learning_rate, epochs, k_range)
    tested = []
    for k in ks:
        classifier.pooling.k = k
        predictions, share = predict(classifier, test)
        accuracy = float((predictions == test.labels).float().mean())
        tested.append({"k": k, "accuracy": accuracy, **({"evidence_share": share} if test.evidence.any() else {})})
    return {"trained": trained, "seed": seed, "tested": tested}


def table(record: dict) -> str:
    """Markdown: a row for each k in training, a column for each k in use, mean ± standard deviation over the seeds."""
    runs = record["runs"]
    ks = [one["k"] for one in runs[0]["tested"]]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    lines = [f"| accuracy, trained with | {' | '.join(f'k = {k}' for k in ks)} |", "|---|" + "--:|" * len(ks)]
    drawn = f"k drawn, {min(ks)} to {max(ks)}"
    rows = {drawn: [(DRAWN, k) for k in ks], "the k of each column": [(str(k), k) for k in ks]}
    rows |= {f"k = {trained}": [(str(trained), k) for k in ks] for trained in ks}
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(runs, trained, k) for trained, k in cells)} |")
    return "\n".join(lines) + (
        f"\n\nTest split, mean ± standard deviation over seeds {seeds}; {record['epochs']} epochs each. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def _cell(runs: list[dict], trained: str, k: int) -> str:
    found = [one["accuracy"] for run in runs if run["trained"] == trained for one in run["tested"] if one["k"] == k]
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.3f}{spread}"


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=["needle", "bbc"], default=["needle"])
    parser.add_argument("--k", nargs="+", type=int, default=[4, 8, 16, 32, 64, 128])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    device, ks = torch.device(arguments.device), sorted(arguments.k)
    for task in arguments.tasks:
        path, facts = arguments.results / f"budgets-{task}.json", {"epochs": arguments.epochs, "k": ks}
        done = {(run["trained"], run["seed"]) for run in resume(path, arguments.device, **facts)["runs"]}
        plan = [(trained, seed) for seed in arguments.seeds for trained in (DRAWN, *map(str, ks))]
        plan = [one for one in plan if one not in done]
        if plan:
            data = tasks.DataArguments(task=task)
            splits = token_vectors(task, tasks.get_task(data).load(data), default_encoder(), device, CACHE)
        for trained, seed in tqdm(plan, desc=task):
            run = train_and_test(trained, ks, seed, splits["train"], splits["test"], arguments.epochs)
            record = resume(path, arguments.device, **facts)  # again: other seeds may be running beside this one
            record["runs"].append(run)
            save(record, path)
        publish(resume(path, arguments.device, **facts), path, table)


if __name__ == "__main__":
    main()
