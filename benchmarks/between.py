"""What does pooling between the encoder's layers save, and what does it cost?

python benchmarks/between.py [--seeds 0 1 2] [--ways "not pooled" ...] [--train-only] [--device cuda]

train.py with configs/bbc-between.yaml trains all 6 layers of MiniLM on BBC News: 256 tokens of an article are pooled
to 32 before layer 2 in several ways (two epochs), and 512 to 64 (one), beside the model that pools nowhere. All train
on equally many documents. Writes benchmarks/results/between.json after every training, then times all ways in turns
(pace.py: the machine must have nothing else to do), and writes the table beside it as .md.
"""

import statistics
import tempfile

import torch
from pace import pace
from record import ROOT, CommandLine, publish, resume, save
from tqdm.auto import tqdm

import train

LAYER = 2
HARD = {"operator": "hard"}
NOWHERE, BOTH = "not pooled", "successive halving in both modes"
WAYS: dict[str, dict] = {
    NOWHERE: HARD | {"scorer": "first"},
    "successive halving": {},
    BOTH: {"eval_operator": "successive_halving"},
    "iterative top-k": {"operator": "iterative"},
    "hard top-k, gated": {"operator": "hard_gated"},
    "every (n/k)-th token": HARD | {"scorer": "strided"},
}
SIZES = [(256, 32, tuple(WAYS)), (512, 64, (NOWHERE, "successive halving"))]  # tokens, k, and which ways
EPOCHS = {256: 2, 512: 1}
ROWS = [(tokens, k, way) for tokens, k, ways in SIZES for way in ways]


def command_line(way: str, tokens: int, k: int, seed: int) -> list[str]:
    """Words for train.py."""
    where = {"k": 1.0, "k_by_layer": "none"} if way == NOWHERE else {"k": k, "k_by_layer": f"{LAYER}:{k}"}
    config = {"config": ROOT / "configs" / "bbc-between.yaml", "max_tokens": tokens, "epochs": EPOCHS.get(tokens, 1)}
    fields = config | {"seed": seed} | WAYS[way] | where
    return [f"--{name}={value}" for name, value in fields.items()]


def train_and_test(way: str, tokens: int, k: int, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        results = train.main([*command_line(way, tokens, k, seed), "--output_dir", folder])
    return {
        "way": way, "tokens": tokens, "k": k, "seed": seed, "documents": results["updates"] * 16,
        **{key: results[f"test_{key}"] for key in ("accuracy", "f1")},
    }  # fmt: skip


def table(record: dict) -> str:
    """Markdown: a row for each way and size, and how many times faster than without pooling."""
    paced = {(one["way"], one["tokens"]): one for one in record["pace"]}
    lines = [
        "| tokens | pooling | k | accuracy | macro-F1 | training, documents/s | times | inference, documents/s | "
        "times |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for tokens, k, way in ROWS:
        runs = [run for run in record["runs"] if (run["way"], run["tokens"]) == (way, tokens)]
        if not runs:  # --ways left it out
            continue
        cells = [_mean([run[key] for run in runs]) for key in ("accuracy", "f1")]
        for key in ("training", "inference"):
            speed = paced[way, tokens][key]
            cells += [f"{speed:.1f}", f"{speed / paced[NOWHERE, tokens][key]:.2f}"]
        lines.append(f"| {tokens} | {way} | {'' if way == NOWHERE else k} | {' | '.join(cells)} |")
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in record["runs"]}))
    return "\n".join(lines) + (
        f"\n\nBBC News, test split, mean ± standard deviation over seeds {seeds}; pooled before layer {LAYER} of 6. "
        f"Times: of the model that is not pooled. Speed: all ways of a size take turns (`benchmarks/pace.py`). "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def measure_pace(chosen: list[str], device: torch.device) -> list[dict]:
    """Documents a second of every chosen way."""
    measured = []
    for tokens, k, every_way in SIZES:
        ways = [way for way in every_way if way in chosen]
        found = pace([command_line(way, tokens, k, seed=0) for way in ways], device)
        for way, speed in zip(ways, found, strict=True):
            speeds = {"training": 16 / speed["update_seconds"], "inference": speed["documents_per_second"]}
            measured.append({"way": way, "tokens": tokens, **speeds})
    return measured


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="rows; the first is needed")
    parser.add_argument("--train-only", action="store_true", help="leave the speed and the table to another call")
    arguments = parser.parse_args()
    path = arguments.results / "between.json"
    record = resume(path, arguments.device)
    done = {(run["way"], run["tokens"], run["seed"]) for run in record["runs"]}
    plan = [(*row, seed) for row in ROWS for seed in arguments.seeds if row[2] in arguments.ways]
    plan = [(tokens, k, way, seed) for tokens, k, way, seed in plan if (way, tokens, seed) not in done]
    for tokens, k, way, seed in tqdm(plan, desc="between"):
        run = train_and_test(way, tokens, k, seed)
        record = resume(path, arguments.device)  # again: other seeds may be running beside this one
        record["runs"].append(run)
        save(record, path)
    if arguments.train_only:
        return
    if "pace" not in record:
        record["pace"] = measure_pace(arguments.ways, torch.device(arguments.device))
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
