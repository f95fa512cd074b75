"""configs/rfc.yaml on a GPU for as long as there is time: how fast it learns, and a checkpoint to go on from.

python benchmarks/rfc_gpu.py [--seconds 120] [--device cuda] [--results folder] [--run runs/rfc-gpu]

The RFCs are those of data/rfc; where there are none, those of an unpacked kit; where there are none either, made-up
ones of random words, which show the speed and no more. After --seconds the training stops with a checkpoint, and the
same command goes on from there. With --device cpu all is tiny, to try it out. Writes rfc-gpu.json and .md.
"""

import json
import math
import os
import signal
import statistics
import sys
import threading
from pathlib import Path

from kit import SITE, backbone
from record import ROOT, CommandLine, publish, resume, save

import train

MADE_UP, WORDS = 240, 6000  # documents, and words of each
TINY = {"max_tokens": 256, "window": 128, "window_k": 16, "k": 32, "batch_size": 2, "eval_batch_size": 2,
        "max_summary_tokens": 16, "max_eval_samples": 2, "max_train_samples": 12, "decoder_layers": 1, "num_beams": 1,
        "epochs": 1}  # fmt: skip
STOPPED = 128 + signal.SIGTERM


def find_rfcs(run: Path, tiny: bool) -> tuple[str, Path]:
    """Which RFCs there are, and their folder."""
    folder = ROOT / "data" / "rfc"
    if folder.is_dir() and not tiny:
        return "data/rfc", folder
    if not tiny and SITE in os.environ and (folder := Path(os.environ[SITE]) / "rfc").is_dir():
        return "a share of the RFCs", folder
    folder = run.with_name(f"{run.name}-made-up")
    if not folder.is_dir():
        make_up(folder, *((30, 400) if tiny else (MADE_UP, WORDS)))
    return "made-up RFCs", folder


def make_up(folder: Path, count: int, words: int) -> None:
    """RFCs of random words."""
    sys.path.append(str(ROOT / "tests" / "helpers"))
    from made_up_rfcs import plain, prose, published, wrapped, write

    for number in range(1, count + 1):
        abstract = prose(number, 40)
        body = wrapped(prose(-number, words))
        write(folder, number, abstract=abstract, text=published(f"Protocol {number}", plain(abstract), body, number))


def learn(words: list[str], seconds: float) -> bool:
    """Train for so long; whether it came to its end."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    if seconds < math.inf:
        timer.start()
    try:
        train.main(words)
    except SystemExit as end:
        if end.code != STOPPED:
            raise
        return False
    finally:
        timer.cancel()
    return True


def summary(run: Path) -> dict:
    """What the files in a run's folder say: updates, speed, memory, losses, and scores if there are any."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    updates = [row for row in rows if "loss" in row]
    warm = updates[min(5, len(updates) // 2) :]
    ends = max(1, len(updates) // 10)
    found = {"updates": len(updates)} | {
        name: statistics.median(row[name] for row in warm)
        for name in ("seconds", "documents_per_second", "tokens_per_second", "peak_memory_gib")
    }
    found["first_loss"] = statistics.mean(row["loss"] for row in updates[:ends])
    found["last_loss"] = statistics.mean(row["loss"] for row in updates[-ends:])
    results = run / "all_results.json"
    scores = json.loads(results.read_text()) if results.exists() else {}
    return found | {name: scores[name] for name in ("test_rouge1", "test_rouge2", "test_rougeL") if name in scores}


def table(record: dict) -> str:
    lines = ["| what | figure |", "|---|--:|"]
    for one in record["runs"]:
        lines += [f"| {name} | {value:.4g} |" for name, value in one.items() if not isinstance(value, bool)]
    ended = ", to its end" if record["runs"][-1]["ended"] else ", stopped by the time, with a checkpoint"
    return "\n".join(lines) + (
        f"\n\nconfigs/rfc.yaml on {record['rfcs']}, mixed precision {record['precision']}{ended}.\n"
        f"Of updates: the median; losses: the mean "
        f"of the first and last tenth. `{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "rfc-gpu", help="folder of the training")
    arguments = parser.parse_args()
    tiny, precision = arguments.device == "cpu", "no" if arguments.device == "cpu" else "bf16"
    rfcs, folder = find_rfcs(arguments.run, tiny)
    path = arguments.results / "rfc-gpu.json"
    record = resume(path, arguments.device, anew=True, rfcs=rfcs, precision=precision)
    fields = {"config": ROOT / "configs" / "rfc.yaml", "rfc_folder": folder, "output_dir": arguments.run,
              "resume": "latest", "mixed_precision": precision, "backbone": backbone(), "max_eval_samples": 48,
              **(TINY if tiny else {})}  # fmt: skip
    ended = learn([f"--{name}={value}" for name, value in fields.items()], arguments.seconds)
    if not (arguments.run / "history.jsonl").exists():
        sys.exit(f"stopped after {arguments.seconds:.0f} s, before the first update")
    record["runs"] = [summary(arguments.run) | {"ended": ended}]
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
