"""Does `shtopk predict` start soon, read long lists in little memory, and gain from sorting by length?

python benchmarks/predict.py [--rows 100000] [--repeats 5]

Three measurements on a CPU, of one thread:

- memory: the peak of `shtopk predict` on so many short texts, less its peak on one text. The model is a tiny one with
  the vocabulary of MiniLM, since what grows with the rows is looked for.
- sorting: documents a second of `predict` on texts of 5 to 500 words whose lengths are log-uniform, read ahead by the
  block, and in batches as they come, with MiniLM.
- start: from the start of the process to its end for one line on standard input, against a Python process that loads
  the same checkpoint with transformers' Auto classes and does nothing with it; a BERT of MiniLM's size.

Little else may run. Writes benchmarks/results/predict.json, and a table beside it as .md.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import ROOT, CommandLine, publish, resume, save

WORDS = ["time", "people", "year", "way", "day", "man", "world", "life", "hand", "part"]  # a token each
COMMAND = [sys.executable, "-m", "shtopk", "predict"]
LOAD = """
import sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
AutoModelForSequenceClassification.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
"""
PEAK = """
import sys
from pathlib import Path
from shtopk.commands import main
code = main(["predict", *sys.argv[1:]])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(code, int(status["VmHWM"].split()[0]) / 1024, file=sys.stderr)
"""  # in the process itself: what wait4 reports begins with the memory of the process that it was forked from
GOALS = {"memory": "at most 300 MiB", "sorting": "at least 1.5 times", "start": "at most 1.5 times"}


def checkpoints(folder: Path) -> None:
    """`pooled` (MiniLM, k 32), `bert` (the same size, without pooling) and `tiny`, with MiniLM's tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification, load_tokenizer

    pooled = TopKPoolingForSequenceClassification.from_backbone(k=32, num_labels=4)
    small = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    models = {
        "pooled": pooled,
        "bert": BertForSequenceClassification(pooled.config.backbone),
        "tiny": TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=small, k=4, num_labels=4)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        load_tokenizer().save_pretrained(folder / name)


def peak(checkpoint: Path, source: Path) -> tuple[float, float]:
    """(peak memory in MiB, seconds) of answering a file."""
    start = time.perf_counter()
    words = [sys.executable, "-c", PEAK, str(checkpoint), str(source), "--output", os.devnull, "--batch_size", "64"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    code, mib = done.stderr.split()
    assert code == "0"
    return float(mib), time.perf_counter() - start


def memory(folder: Path, rows: int) -> dict:
    draw = random.Random(0)
    one, many = folder / "one.txt", folder / "many.txt"
    one.write_text("a text\n")
    with many.open("w") as file:
        for _ in range(rows):
            file.write(" ".join(draw.choices(WORDS, k=draw.randint(5, 15))) + "\n")
    own, _ = peak(folder / "tiny", one)
    total, seconds = peak(folder / "tiny", many)
    return {"rows": rows, "own_mib": own, "above_mib": total - own, "seconds": seconds}


def sorting(folder: Path, texts: int) -> dict:
    from shtopk.models import load_checkpoint, predict

    draw = random.Random(0)
    documents = [" ".join(draw.choices(WORDS, k=int(5 * 100 ** draw.random()))) for _ in range(texts)]
    model, tokenizer = load_checkpoint(folder / "pooled")
    rates = {}
    for name, block in {"as_they_come": 16, "sorted": 1024}.items():
        start = time.perf_counter()
        labels = [answer.label for answer in predict(model, tokenizer, documents, block=block)]
        rates[name] = len(labels) / (time.perf_counter() - start)
    return {"texts": texts, **rates, "times": rates["sorted"] / rates["as_they_come"]}


def start(folder: Path, repeats: int) -> dict:
    def seconds(words: list[str], line: bytes) -> float:
        begin = time.perf_counter()
        subprocess.run(words, input=line, check=True, capture_output=True)
        return time.perf_counter() - begin

    found: dict[str, list[float]] = {"load": [], "predict": []}
    checkpoint = str(folder / "bert")
    for turn in range(repeats + 1):
        one = seconds([sys.executable, "-c", LOAD, checkpoint], b"")
        other = seconds([*COMMAND, checkpoint, "-"], b"time people year\n")
        if turn:  # the first reads everything from the disk
            found["load"].append(one)
            found["predict"].append(other)
    load, predict = (statistics.median(found[name]) for name in ("load", "predict"))
    return {"load": load, "predict": predict, "times": predict / load, "runs": found}


def table(record: dict) -> str:
    """Markdown: a row for each measurement."""
    by_name = {run["name"]: run for run in record["runs"]}
    peak, sort, begin = (by_name[name] for name in ("memory", "sorting", "start"))
    lines = [
        "| | measured | goal |",
        "|---|---|---|",
        f"| memory for {peak['rows']:,} short texts above that for one ({peak['own_mib']:.0f} MiB) | "
        f"{peak['above_mib']:.0f} MiB ({peak['seconds']:.0f} s in all) | {GOALS['memory']} |",
        f"| {sort['texts']} texts of 5 to 500 words, sorted by length | {sort['sorted']:.1f} a second, "
        f"{sort['times']:.2f} times the {sort['as_they_come']:.1f} in batches as they come | {GOALS['sorting']} |",
        f"| one line on standard input | {begin['predict']:.2f} s, {begin['times']:.2f} times the {begin['load']:.2f} "
        f"s in which transformers loads the model | {GOALS['start']} |",
    ]
    return "\n".join(lines) + (
        f"\n\nMiniLM with k 32 for sorting, a BERT of its size for the start, one of one layer for memory. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--rows", type=int, default=100_000, help="short texts of the measurement of memory")
    parser.add_argument("--texts", type=int, default=400, help="texts of the measurement of sorting")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind that the start is a median of")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    torch.set_num_threads(1)
    path = arguments.results / "predict.json"
    record = resume(path, "cpu", rows=arguments.rows, texts=arguments.texts, repeats=arguments.repeats)
    done = {run["name"] for run in record["runs"]}
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints(folder)
        for what, measure, size in (("start", start, arguments.repeats), ("memory", memory, arguments.rows),
                                    ("sorting", sorting, arguments.texts)):  # fmt: skip
            if what not in done:
                record["runs"].append({"name": what} | measure(folder, size))
                print(json.dumps(record["runs"][-1]), flush=True)
                save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
