"""Fine-tuning on a GPU: documents per second and accuracy, pooled between the encoder's layers and not.

python benchmarks/finetune_gpu.py [--seconds 100] [--device cuda] [--results folder]

As between.py, with bf16 on a GPU: 256 tokens of a BBC News article pooled to 32 before layer 2 of MiniLM's 6, 512 to
64, and 4,096 to 512. For these MiniLM's 512 positions are repeated eight times, as Longformer's were made, and the
documents are articles of one topic, joined: every layer attends to all tokens, which windows would spare it. Speeds
are measured first, in turns (pace.py), then every way trains once; the record is saved after each, and after --seconds
nothing more is begun. With --device cpu the same with tiny texts, to try it out. Writes finetune-gpu.json and .md.
"""

import json
import math
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from between import NOWHERE, command_line
from kit import backbone
from pace import pace
from record import CommandLine, publish, resume, save
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

import train
from shtopk.models import load_tokenizer
from shtopk.tasks import bbc
from shtopk.tasks.needle import count_pieces

WAYS = (NOWHERE, "successive halving")
POSITIONS = 512  # of MiniLM
DOCUMENTS = {"train": 640, "validation": 64, "test": 192}  # of joined articles


@dataclass(frozen=True)
class Size:
    """Tokens of a document, and to how many they are pooled; joined: its documents are articles joined."""

    tokens: int
    k: int
    joined: bool = False


SIZES = (Size(256, 32), Size(512, 64), Size(4096, 512, joined=True))
TINY = (Size(32, 4), Size(64, 8), Size(96, 12, joined=True))


def longer(folder: Path, tokens: int) -> Path:
    """MiniLM with so many positions: its own, repeated."""
    source = Path(backbone())
    weights = load_file(source / "model.safetensors")
    weights = {name: x for name, x in weights.items() if not name.endswith("position_ids")}
    (name,) = [name for name in weights if name.endswith("position_embeddings.weight")]
    weights[name] = weights[name].repeat(math.ceil(tokens / POSITIONS), 1)[:tokens].contiguous()
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | {"max_position_embeddings": tokens}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(source)
    tokenizer.model_max_length = tokens
    tokenizer.save_pretrained(folder)
    return folder


def join_articles(folder: Path, tokens: int, documents: dict[str, int]) -> None:
    """Files of documents of about so many tokens, whose articles have one topic. An article stays in its split."""
    for split, articles in bbc.split_articles().items():
        noise = random.Random(f"joined {split}")
        by_topic = {label: [one.text for one in articles if one.label == label] for label in bbc.LABELS}
        with (folder / f"{split}.jsonl").open("w") as file:
            for i in range(documents[split]):
                label, parts, length = bbc.LABELS[i % len(bbc.LABELS)], [], 0
                while length < tokens:
                    parts.append(noise.choice(by_topic[label]))
                    length += count_pieces(parts[-1])
                file.write(json.dumps({"text": "\n\n".join(parts), "label": label}) + "\n")


def words_of(way: str, size: Size, device: str, folder: Path) -> list[str]:
    """A command line of train.py. The longer MiniLM and the joined articles are made in the folder where missing."""
    words = command_line(way, size.tokens, size.k, seed=0)
    words.append(f"--mixed_precision={'bf16' if device.startswith('cuda') else 'no'}")
    if device == "cpu":
        words += ["--max_train_samples=48", "--max_eval_samples=20", "--epochs=1"]
    if not size.joined:
        return [*words, f"--backbone={backbone()}"]
    if not (folder / "long").exists():
        longer(folder / "long", size.tokens)
        join_articles(folder, size.tokens, dict.fromkeys(DOCUMENTS, 60) if device == "cpu" else DOCUMENTS)
    files = [f"--{split}_file={folder / split}.jsonl" for split in DOCUMENTS]
    return [*words, "--task=files", *files, f"--backbone={folder / 'long'}"]


def measure_pace(size: Size, device: str, folder: Path) -> list[dict]:
    """Documents a second of every way."""
    found = pace([words_of(way, size, device, folder) for way in WAYS], torch.device(device))
    return [
        {"way": way, "tokens": size.tokens, "k": size.k, "training": 16 / speed["update_seconds"],
         "inference": speed["documents_per_second"]}
        for way, speed in zip(WAYS, found, strict=True)
    ]  # fmt: skip


def train_and_test(way: str, size: Size, device: str, folder: Path) -> dict:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as output:
        results = train.main([*words_of(way, size, device, folder), "--output_dir", output])
    scores = {key: results[f"test_{key}"] for key in ("accuracy", "f1")}
    seconds = round(time.monotonic() - start, 1)
    return {"way": way, "tokens": size.tokens, "updates": results["updates"], "seconds": seconds, **scores}


def table(record: dict) -> str:
    """Markdown: a row for each way and size that was measured."""
    heads = ("training, documents/s", "times", "inference, documents/s", "times", "accuracy", "updates")
    lines = [f"| tokens | pooling | k | {' | '.join(heads)} |", "|--:|---|--:|" + "--:|" * len(heads)]
    speeds = {(one["way"], one["tokens"]): one for one in record["pace"]}
    runs = {(one["way"], one["tokens"]): one for one in record["runs"]}
    for way, tokens in speeds:
        speed, run = speeds[way, tokens], runs.get((way, tokens))
        cells = [str(tokens), way, "" if way == NOWHERE else str(speed["k"])]
        for key in ("training", "inference"):
            cells += [f"{speed[key]:.0f}", f"{speed[key] / speeds[NOWHERE, tokens][key]:.2f}"]
        cells += [f"{run['accuracy']:.3f}", str(run["updates"])] if run else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + (
        f"\n\nBBC News, {record['precision']}, seed 0, test split; beyond {POSITIONS} tokens: articles of one topic, "
        f"joined, and MiniLM's positions repeated. Times: of the model that is not pooled, all in turns. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin nothing after so many")
    arguments = parser.parse_args()
    end, device = time.monotonic() + arguments.seconds, arguments.device
    path = arguments.results / "finetune-gpu.json"
    precision = "bf16" if device.startswith("cuda") else "float32, tiny texts"
    record = {"pace": []} | resume(path, device, precision=precision)
    sizes = TINY if device == "cpu" else SIZES
    with tempfile.TemporaryDirectory() as folder:
        for size in tqdm(sizes, desc="pace"):
            if all(one["tokens"] != size.tokens for one in record["pace"]) and time.monotonic() < end:
                record["pace"] += measure_pace(size, device, Path(folder))
                save(record, path)
                path.with_suffix(".md").write_text(table(record))
        done = {(run["way"], run["tokens"]) for run in record["runs"]}
        for size in sizes:
            for way in WAYS:
                if (way, size.tokens) not in done and time.monotonic() < end:
                    record["runs"].append(train_and_test(way, size, device, Path(folder)))
                    save(record, path)
                    path.with_suffix(".md").write_text(table(record))
    publish(record, path, table)


if __name__ == "__main__":
    main()
