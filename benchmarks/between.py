"""What does pooling between the encoder's layers save, and what does it cost?

python benchmarks/between.py [--seeds 0 1 2] [--ways "not pooled" ...] [--device cuda]
python benchmarks/between.py --speed    # the machine must have nothing else to do

train.py with configs/bbc-between.yaml trains all 6 layers of MiniLM on BBC News: 256 tokens of an article are pooled
to 32 before layer 2 in several ways (two epochs), and 512 to 64 (one), beside the model that pools nowhere. All train
on equally many documents. Writes benchmarks/results/between.json after every training. --speed times all ways in turns
(pace.py) instead, into between-speed.json. A table stands beside each as .md.
"""

import statistics
import tempfile
from collections.abc import Iterable

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
ACCURACY = {"accuracy": "accuracy", "f1": "macro-F1"}  # fields of a run -> heads of columns
SPEED = ("training", "inference")


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
    """Markdown: a row for each way and size, with accuracy, speed or both, whatever the record has."""
    runs, paced = record.get("runs", []), record.get("pace", [])
    speeds = [head for name in SPEED for head in (f"{name}, documents/s", "times")]
    heads = [*(ACCURACY.values() if runs else ()), *(speeds if paced else ())]
    lines = [f"| tokens | pooling | k | {' | '.join(heads)} |", "|--:|---|--:|" + "--:|" * len(heads)]
    for tokens, k, way in ROWS:
        found = [run for run in runs if (run["way"], run["tokens"]) == (way, tokens)]
        cells = [mean(run[key] for run in found) for key in ACCURACY] if found else [""] * len(ACCURACY) * bool(runs)
        cells += speed_cells(paced, way, tokens) if paced else []
        if any(cells):  # --ways left out others
            lines.append(f"| {tokens} | {way} | {'' if way == NOWHERE else k} | {' | '.join(cells)} |")
    said = [f"BBC News; pooled before layer {LAYER} of 6."]
    if runs:
        seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
        said.append(f"Accuracy: test split, mean ± standard deviation over seeds {seeds}.")
    if paced:
        said.append("Times: of the model that is not pooled. Speed: all ways of a size take turns "
                    "(`benchmarks/pace.py`).")  # fmt: skip
    return "\n".join(lines) + (
        f"\n\n{' '.join(said)} `{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def speed_cells(paced: list[dict], way: str, tokens: int) -> list[str]:
    speeds = {one["way"]: one for one in paced if one["tokens"] == tokens}
    if way not in speeds:
        return [""] * 2 * len(SPEED)
    pairs = [(speeds[way][name], speeds[way][name] / speeds[NOWHERE][name]) for name in SPEED]
    return [cell for speed, times in pairs for cell in (f"{speed:.1f}", f"{times:.2f}")]


def mean(figures: Iterable[float]) -> str:
    values = list(figures)
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
    parser.add_argument("--speed", action="store_true", help="no trainings, the speed")
    arguments = parser.parse_args()
    path = arguments.results / f"between{'-speed' * arguments.speed}.json"
    record = resume(path, arguments.device, anew=arguments.speed)
    if arguments.speed:
        record["pace"] = measure_pace(arguments.ways, torch.device(arguments.device))
        save(record, path)
        publish(record, path, table)
        return
    done = {(run["way"], run["tokens"], run["seed"]) for run in record["runs"]}
    plan = [(*row, seed) for row in ROWS for seed in arguments.seeds if row[2] in arguments.ways]
    plan = [(tokens, k, way, seed) for tokens, k, way, seed in plan if (way, tokens, seed) not in done]
    for tokens, k, way, seed in tqdm(plan, desc="between"):
        run = train_and_test(way, tokens, k, seed)
        record = resume(path, arguments.device)  # again: other seeds may be running beside this one
        record["runs"].append(run)
        save(record, path)
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
