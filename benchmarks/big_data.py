"""How much memory does a large text take in training, and how long does it take to the first update?

python benchmarks/big_data.py [--mib 128] [--documents 100000] [--small 8] [--processes 1]

Texts are made up: JSON lines of a label and words drawn at random. A tiny model is trained for one update on so many
documents that hold so many MiB, first with an empty cache and then again with what the first run left there. Beside
it, the same on a small file. Each run is a process of its own (or several, by torchrun). What is measured:

- memory: the largest anonymous memory of the first process until the first update is done, above that on the small
  file. Pages of files that are mapped into memory do not count: the system takes them back when it needs room.
- seconds from the end of the imports to the end of the first update, and the update alone.

Writes benchmarks/results/big-data.json, and a table beside it as .md.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT, CommandLine, publish, resume, save

WORDS = ["time", "people", "year", "way", "day", "man", "world", "life", "hand", "part"]  # a token each
CHILD = """
import json, os, sys, threading, time
from pathlib import Path
sys.path.insert(0, os.environ["ROOT"])
import train
from shtopk.training.run import Run
from shtopk.training.step import train_step
from shtopk.training.meter import Meter
peak, watching = [0], threading.Event()
def look():
    while not watching.wait(0.02):
        rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak[0] = max(peak[0], int(rows["RssAnon"].split()[0]))
threading.Thread(target=look, daemon=True).start()
start = time.perf_counter()
run = Run.prepare(sys.argv[1:])
incoming = run.batches.starting_at(0)
meter = Meter(run.model, run.accelerator.device)
meter.begin()
before = time.perf_counter()
train_step(run, next(incoming), meter)
end = time.perf_counter()
watching.set()
if run.accelerator.is_main_process:
    print("FOUND", json.dumps({"mib": peak[0] / 1024, "seconds": end - start, "update": end - before}))
"""


def write_texts(path: Path, mib: float, documents: int) -> None:
    """Write a file of so many documents of two classes, which are so many MiB of words together."""
    draw = random.Random(0)
    per_document = round(mib * 2**20 / documents / (sum(map(len, WORDS)) / len(WORDS) + 1))
    with path.open("w") as file:
        for i in range(documents):
            text = " ".join(draw.choices(WORDS, k=per_document))
            file.write(json.dumps({"text": f"{i} {text}", "label": ("sport", "money")[i % 2]}) + "\n")


def save_encoder(folder: Path) -> None:
    """A random BERT of one layer with MiniLM's tokenizer."""
    from transformers import BertConfig, BertModel

    from shtopk.models import load_tokenizer

    small = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(small, add_pooling_layer=False).save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)


def measure(file: Path, encoder: Path, cache: Path, processes: int) -> dict[str, float]:
    """The figures of a run until its first update."""
    words = [f"--train_file={file}", f"--backbone={encoder}", f"--output_dir={cache / 'run'}", "--k=8",
             "--batch_size=16", "--mixed_precision=no", "--max_tokens=512", "--overwrite=true"]  # fmt: skip
    environment = os.environ | {"HF_DATASETS_CACHE": str(cache), "ROOT": str(ROOT), "ACCELERATE_USE_CPU": "1"}
    script = cache.parent / "child.py"
    script.write_text(CHILD)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, str(script), *words], env=environment, check=True, capture_output=True, text=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


def table(record: dict) -> str:
    """Markdown: a row for each run."""
    small = {run["run"]: run["mib"] for run in record["runs"] if run["size"] == "small"}
    lines = [
        "| text | run | memory above the small file's | to the first update | the update |",
        "|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        above = f"{max(0, run['mib'] - small[run['run']]):,.0f} MiB" if run["size"] != "small" else "-"
        lines.append(f"| {run['text_mib']:,.0f} MiB, {run['documents']:,} documents | {run['run']} | {above} | "
                     f"{run['seconds']:.1f} s | {run['update']:.2f} s |")  # fmt: skip
    return "\n".join(lines) + (
        f"\n\nSeconds count from the end of the imports; {record['processes']} process(es). "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--mib", type=float, default=128, help="of text in the large file")
    parser.add_argument("--documents", type=int, default=100_000, help="in the large file")
    parser.add_argument("--small", type=float, default=8, help="MiB of text in the small file, of as long documents")
    parser.add_argument("--processes", type=int, default=1, help="of each run")
    arguments = parser.parse_args()
    path = arguments.results / "big-data.json"
    record = resume(path, "cpu", anew=True, processes=arguments.processes)
    folder = Path(tempfile.mkdtemp())
    try:
        save_encoder(folder / "encoder")
        of_small = max(40, round(arguments.documents * arguments.small / arguments.mib))
        for size, mib, documents in (("small", arguments.small, of_small),
                                     ("large", arguments.mib, arguments.documents)):  # fmt: skip
            write_texts(folder / f"{size}.jsonl", mib, documents)
            (folder / size).mkdir()
            for run in ("first", "second"):
                found = measure(folder / f"{size}.jsonl", folder / "encoder", folder / size, arguments.processes)
                record["runs"].append({"size": size, "run": run, "text_mib": mib, "documents": documents, **found})
                print(record["runs"][-1], flush=True)
    finally:
        shutil.rmtree(folder)
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
