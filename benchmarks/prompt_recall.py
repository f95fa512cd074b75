"""How much does a language model still know of a prompt of which k vectors are left? All ways side by side.

python benchmarks/prompt_recall.py [--k 8 16 32 64 128] [--seeds 0 1 2] [--updates 300] [--words 512]

First a small Llama is trained from scratch to recall anything of prompt_recall_task.py from whole prompts; it is kept
in benchmarks/.cache. Then a copy is trained with each way to pool its prompts before layer --layer, with a k drawn
anew for every update, so that one training serves all k; as a whole, or the scorer alone. Ways that need no training
are used as they are, and some of them trained as well. What is pooled is the prompt; the questions come later, and no
way sees them as it chooses.

An answer counts if both parts of its number are the likeliest, the second after the right first one, which is what
greedy generation says. Writes benchmarks/results/prompt-recall.json after every training, so that an interrupted run
goes on where it stopped, and the table beside it as .md.
"""

import argparse
import copy
import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prompt_recall_table import table
from prompt_recall_task import PARTS, Batch, Registry
from ranking import to_text
from record import RESULTS, CommandLine, publish, resume, save
from rivals.prompts import TRAINING_FREE, put_rival
from torch import nn
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder
from shtopk.pooling import poolings

CACHE = RESULTS.parent / ".cache"
STAGES = ((48, 4, False, 32, 1000), (96, 8, True, 32, 400), (256, 8, True, 16, 100), (512, 8, True, 16, 200))
"""From scratch: (words, facts, whether anything may be asked, prompts of an update, updates). From short prompts, and
from questions of one kind, recall is learnt soonest."""
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "initializer_range": 0.06,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
BASE_RATE, RATE, SCORER_RATE = 3e-3, 5e-4, 1e-2  # learning rates
TRAINED_K = (32, 128)  # between what k is drawn in training
TEST_PROMPTS = 200


class Way(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the row.
        options: of `pool_decoder`; None: nothing is pooled.
        rival: a key of `TRAINING_FREE`, in place of a pooling that learns.
        trained: what of the model is: all of it ("whole"), the scorer alone, or nothing.
        evaluations: {name of a further row: options that differ in eval mode}.
    """

    name: str
    options: dict[str, Any] | None = {}
    rival: str | None = None
    trained: str = "whole"
    evaluations: dict[str, dict[str, Any]] = {}


RIVALS = [name for name in TRAINING_FREE if name != "SnapKV, question in sight"]  # here nobody sees the questions
BY_PLACE = ("first and last tokens", "every (n/k)-th token", "random tokens", "means of stretches")
LEARNED = {
    "iterative top-k": {"operator": "iterative"},
    "hard top-k, gated": {"operator": "hard_gated"},
    "hard top-k, straight-through": {"operator": "hard_straight_through"},
}
WAYS = [
    Way("all tokens", None),
    Way("all tokens, as it was", None, trained="nothing"),
    Way(
        "successive halving",
        evaluations={
            "successive halving, evaluated by select and merge": {"eval_operator": "select_and_merge"},
            "successive halving, evaluated by hard top-k": {"eval_operator": "hard"},
        },
    ),
    *(Way(name, options) for name, options in LEARNED.items()),
    *(Way(f"{name}, trained", rival=name) for name in BY_PLACE),
    Way("successive halving, the rest frozen", trained="scorer"),
    *(Way(f"{name}, the rest frozen", options, trained="scorer") for name, options in LEARNED.items()),
    *(Way(name, rival=name, trained="nothing") for name in RIVALS),
]


def base_model(seed: int = 0) -> LlamaForCausalLM:
    """The Llama that recalls facts of whole prompts; trained if it is not in the cache."""
    folder = CACHE / f"recall-{seed}"
    if (folder / "model.safetensors").exists():
        return LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    registry = Registry("train", seed)
    config = LlamaConfig(vocab_size=len(registry), **SHAPE)
    model = LlamaForCausalLM(config)
    batches = (
        registry.batch(size, words, facts, anything)
        for words, facts, anything, size, updates in STAGES
        for _ in range(updates)
    )
    fit(model, batches, sum(updates for *_, updates in STAGES), BASE_RATE)
    model.save_pretrained(folder)
    return model


def fit(model: Any, batches: Iterator[Batch], updates: int, rate: float, pooled: bool = False) -> None:
    """Train what of a model requires a gradient; if it is pooled, with a k drawn for each update."""
    scorers = [parameter for pooling in poolings(model) for parameter in pooling.parameters()]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is its for its in scorers)]
    groups = [{"params": its, "lr": lr} for its, lr in ((others, rate), (scorers, SCORER_RATE)) if its]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = min(100, updates // 10 + 1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / warmup) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / updates))),
    )
    draw = random.Random(0)
    model.train()
    progress = tqdm(itertools.islice(batches, updates), total=updates, desc="train", leave=False)
    for batch in progress:
        loss = model(
            batch.tokens, labels=batch.labels, **asked(batch, log_uniform(draw, *TRAINED_K) if pooled else None)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        for group in groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def asked(batch: Batch, k: int | None) -> dict[str, Any]:
    """What a pooled model is told: what to pool, to how many vectors."""
    return {} if k is None else {"compress_mask": batch.prompt, "k": k}


def log_uniform(draw: random.Random, low: int, high: int) -> int:
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


@torch.no_grad()
def recall(model: Any, tests: list[Batch], k: int | None) -> dict[str, Any]:
    """Whether each fact was recalled, as text of 0 and 1, and the mean loss of a part of a number."""
    right, losses = [], []
    for batch in tests:
        out = model(batch.tokens, labels=batch.labels, **asked(batch, k))
        n = int(batch.prompt[0].sum())
        labels = batch.labels[:, n:].unflatten(1, (-1, PARTS + 2))
        said = out.logits[:, n - 1 : -1].argmax(-1).view_as(labels)
        right.append(((said == labels) | (labels == -100)).all(-1).flatten())
        losses.append(out.loss)
    return {"right": to_text(torch.cat(right).int()), "loss": float(torch.stack(losses).mean())}


def pooled(base: LlamaForCausalLM, way: Way, layer: int, most: int) -> Any:
    """A copy of the model that pools in this way."""
    model = copy.deepcopy(base)
    if way.options is None:
        return model
    pool_decoder(model, {layer: most}, **way.options)
    if way.rival is not None:
        put_rival(model, layer, way.rival, most)
    return model


def evaluated(model: Any, way: Way, tests: list[Batch], ks: list[int]) -> Iterator[dict[str, Any]]:
    """A row for each k, and for each way to evaluate."""
    if way.options is None:
        yield {"way": way.name, "k": 0} | recall(model, tests, None)
        return
    for name, options in ({way.name: {}} | way.evaluations).items():
        before = [(pooling, pooling.options) for pooling in poolings(model)]
        for pooling, its in before:
            if options:
                pooling.options = its.__class__.of(its.to_dict() | options)
        for k in ks:
            yield {"way": name, "k": k} | recall(model, tests, k)
        for pooling, its in before:
            pooling.options = its


def parse() -> argparse.Namespace:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], metavar="WAY", help="all by default")
    parser.add_argument("--k", nargs="+", type=int, default=[8, 16, 32, 64, 128], help="vectors that are left")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=300, help="of 16 prompts, with a way")
    parser.add_argument("--words", type=int, default=512, help="of a prompt")
    parser.add_argument("--layer", type=int, default=1, help="whose input is pooled, of 4")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    path: Path = arguments.results / "prompt-recall.json"
    facts = {name: getattr(arguments, name) for name in ("k", "updates", "words", "layer")}
    record = resume(path, "cpu", **facts)
    base, ks = base_model(), sorted(arguments.k)
    registry = Registry("test", 0)
    tests = [registry.batch(20, arguments.words) for _ in range(TEST_PROMPTS // 20)]
    ways = [way for way in WAYS if arguments.ways is None or way.name in arguments.ways]
    done = {(row["trained_as"], row["seed"]) for row in record["runs"]}
    plan = [
        (seed, way)
        for seed in arguments.seeds
        for way in ways
        if way.trained != "nothing" or seed == arguments.seeds[0]
    ]
    for seed, way in tqdm([one for one in plan if (one[1].name, one[0]) not in done]):
        torch.manual_seed(seed)
        model = pooled(base, way, arguments.layer, max(ks)).eval()
        if way.trained == "scorer":
            model.requires_grad_(False)
            for pooling in poolings(model):
                pooling.requires_grad_(True)
        if way.trained != "nothing":
            texts = Registry("train", 1000 + seed)
            batches = (texts.batch(16, arguments.words) for _ in itertools.count())
            fit(model, batches, arguments.updates, RATE, pooled=way.options is not None)
        same = {"trained_as": way.name, "seed": seed, "trained": way.trained}
        record["runs"] += [same | row for row in evaluated(model, way, tests, ks)]
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
