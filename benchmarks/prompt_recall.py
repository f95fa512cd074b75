"""How much does a language model still know of a prompt of which k vectors are left? All ways side by side.

python benchmarks/prompt_recall.py [--k 8 16 32 64 128] [--seeds 0 1 2] [--updates 400] [--words 512]

First a small Llama is trained from scratch to recall anything of prompt_recall_task.py from whole prompts; it is kept
in benchmarks/.cache (prompt_recall_base.py). Then a copy is trained with each way to pool its prompts before layer
--layer, with a k drawn anew for every update, so that one training serves all k; as a whole, or the scorer alone. Ways
that need no training are used as they are, and some of them trained as well. What is pooled is the prompt; the
questions come later, and no way sees them as it chooses.

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
from prompt_recall_answers import Answers, answers, recall
from prompt_recall_base import base_model
from prompt_recall_table import table
from prompt_recall_task import Batch, Registry
from record import CommandLine, publish, resume, save
from rivals.bearing import Bearing, last_token, middle, slots_bear
from rivals.presses import PRESSES, installed, make_press, predict
from rivals.prompts import TRAINING_FREE, put_rival
from torch import nn
from tqdm.auto import tqdm
from transformers import LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder
from shtopk.pooling import poolings

RATE, SCORER_RATE = 5e-4, 1e-2  # learning rates
TRAINED_K = (16, 128)  # between what k is drawn in training
TEST_PROMPTS = 100


class Way(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the row.
        options: of `pool_decoder`; None: nothing is pooled.
        rival: a key of `TRAINING_FREE`, in place of a pooling that learns.
        press: a key of kvpress's `PRESSES`, after the prompt was read, in place of a pooling.
        bearing: the position that a slot bears; None: that of its heaviest token.
        trained: what of the model is: all of it ("whole"), the scorer alone, or nothing.
        rate: learning rate of what is no scorer.
        evaluations: {name of a further row: options that differ in eval mode}.
    """

    name: str
    options: dict[str, Any] | None = {}
    rival: str | None = None
    press: str | None = None
    bearing: Bearing | None = None
    trained: str = "whole"
    rate: float = RATE
    evaluations: dict[str, dict[str, Any]] = {}


RIVALS = [name for name in TRAINING_FREE if name != "SnapKV, question in sight"]  # here nobody sees the questions
BY_PLACE = ("first and last tokens", "every (n/k)-th token", "random tokens", "means of stretches")
BY_ITSELF = {"eval_operator": "successive_halving"}  # by default select and merge pools after training
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
            "successive halving in both modes": BY_ITSELF,
            "successive halving, evaluated by hard top-k": {"eval_operator": "hard"},
        },
    ),
    Way("successive halving, a slot where its last token stands", BY_ITSELF, bearing=last_token),
    Way("successive halving, a slot in the middle of its tokens", BY_ITSELF, bearing=middle),
    *(Way(name, options) for name, options in LEARNED.items()),
    *(Way(f"{name}, at a fifth of the rate", options, rate=RATE / 5) for name, options in LEARNED.items()),
    *(Way(f"{name}, trained", rival=name) for name in BY_PLACE),
    Way("successive halving, the rest frozen", trained="scorer"),
    *(Way(f"{name}, the rest frozen", options, trained="scorer") for name, options in LEARNED.items()),
    *(Way(name, rival=name, trained="nothing") for name in RIVALS),
    *(Way(name, None, press=name, trained="nothing") for name in PRESSES if installed()),
]


def fit(model: Any, batches: Iterator[Batch], updates: int, rate: float, pooled: bool) -> None:
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
        loss = answers(model, batch, log_uniform(draw, *TRAINED_K) if pooled else None).loss
        optimizer.zero_grad()
        loss.backward()
        for group in groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def log_uniform(draw: random.Random, low: int, high: int) -> int:
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


def pressed_answers(model: Any, batch: Batch, k: int, press: str, layer: int) -> Answers:
    """Ask for all facts of prompts of which kvpress keeps k keys in each head of each layer from this one on."""
    context, following = batch.tokens[:, : batch.words], batch.tokens[:, batch.words :]
    logits = predict(model, make_press(press, batch.words, k), context, following, layer)
    return Answers.of(logits, batch.labels[:, batch.words :])


def pooled(base: LlamaForCausalLM, way: Way, layer: int, most: int) -> Any:
    """A copy of the model that pools in this way."""
    model = copy.deepcopy(base)
    if way.options is None:
        return model
    pool_decoder(model, {layer: most}, **way.options)
    if way.rival is not None:
        put_rival(model, layer, way.rival, most)
    return model


def evaluated(model: Any, way: Way, tests: list[Batch], ks: list[int], layer: int) -> Iterator[dict[str, Any]]:
    """A row for each k, and for each way to evaluate."""
    if way.press:
        for k in ks:
            said = (pressed_answers(model, batch, k, way.press, layer) for batch in tests)
            yield {"way": way.name, "k": k} | recall(said)
        return
    if way.options is None:
        yield {"way": way.name, "k": 0} | recall(answers(model, batch, None) for batch in tests)
        return
    for name, options in ({way.name: {}} | way.evaluations).items():
        before = [(pooling, pooling.options) for pooling in poolings(model)]
        for pooling, its in before:
            if options:
                pooling.options = its.__class__.of(its.to_dict() | options)
        for k in ks:
            yield {"way": name, "k": k} | recall(answers(model, batch, k) for batch in tests)
        for pooling, its in before:
            pooling.options = its


def train(model: Any, way: Way, arguments: argparse.Namespace, seed: int) -> None:
    """Train a model with a way to pool."""
    if way.trained == "scorer":
        model.requires_grad_(False)
        for pooling in poolings(model):
            pooling.requires_grad_(True)
    texts = Registry("train", 1000 + seed)
    batches = (texts.batch(8, arguments.words) for _ in itertools.count())
    fit(model, batches, arguments.updates, way.rate, pooled=way.options is not None)


def parse() -> argparse.Namespace:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], metavar="WAY", help="all by default")
    parser.add_argument("--k", nargs="+", type=int, default=[8, 16, 32, 64, 128], help="vectors that are left")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=400, help="of 8 prompts, with a way")
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
        same = {"trained_as": way.name, "seed": seed, "trained": way.trained}
        with slots_bear(way.bearing):
            if way.trained != "nothing":
                train(model, way, arguments, seed)
            record["runs"] += [same | row for row in evaluated(model, way, tests, ks, arguments.layer)]
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
