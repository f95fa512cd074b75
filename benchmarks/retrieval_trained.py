"""A multi-vector index of k vectors a document, where the encoder learns along with the pooling.

python benchmarks/retrieval_trained.py [--tasks bbc needle docstrings rfc] [--k 8 32] [--seeds 0 1 2] [--tokens 256]
python benchmarks/retrieval_trained.py --lora 8    # a LoRA of this rank instead of the whole encoder
python benchmarks/retrieval_trained.py --ways "all tokens" "Ward clusters" --epochs 1 --documents 200    # a part

The tasks and ways are those of retrieval.py, whose encoder is frozen. Here a sentence-transformers
`MultiVectorEncoder` (MiniLM, mask, pooling, `Normalize`) is trained through the pooling, by
`MultiVectorMultipleNegativesRankingLoss`: each document of a batch against the others, by one of its queries.
Documents are cut to --tokens, so that an update takes seconds on a CPU core. A trained encoder is evaluated in each of
the ways that `EVALUATIONS` names, without training again. Writes benchmarks/results/retrieval-trained.json (with
--lora retrieval-lora.json) after every training, so that it can be interrupted, and the tables beside it as .md.
"""

import argparse
import dataclasses
import itertools
import statistics
import time

import torch
from ranking import to_text
from record import CommandLine, publish, resume, save
from retrieval import check_tasks, found, pooled, size_of
from retrieval_table import table
from retrieval_tasks import TASKS, Texts, counts, draw, encode, encoder, texts
from retrieval_ways import WAYS, Way
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.scoring import colbert_scores
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from shtopk import anneal
from shtopk.models import default_encoder
from shtopk.pooling import poolings
from shtopk.training.experiment import best_precision

LEARNING_RATES = {"whole": 2e-5, "lora": 2e-4}  # of the encoder
SCORER_LEARNING_RATE = 1e-2
DEFAULT = [way.name for way in WAYS if way.name != "random scorer, frozen"]  # nothing is frozen here
# Way -> another row of it -> the options of its pooling there, in eval mode, that are not those it was trained with.
# This is the one place to add to.
EVALUATIONS: dict[str, dict[str, dict]] = {
    "successive halving": {
        "successive halving in both modes": {"eval_operator": "successive_halving"},
        "successive halving, evaluated by hard top-k": {"eval_operator": "hard"},
    },
}


def build(way: Way, k: int, arguments: argparse.Namespace) -> MultiVectorEncoder:
    """The encoder with a way's pooling, on CPU, as it is before training."""
    model = encoder(arguments.encoder, most_tokens=arguments.tokens)
    if arguments.lora:
        from peft import LoraConfig  # late: only here is it needed

        lora = LoraConfig(r=arguments.lora, lora_alpha=2 * arguments.lora, target_modules="all-linear")
        model.add_adapter(lora)
    pooling = way.build(model.get_embedding_dimension(), k)
    return MultiVectorEncoder(modules=[*model, pooling, Normalize()], device="cpu")


def fit(model: MultiVectorEncoder, train: Texts, seed: int, arguments: argparse.Namespace) -> int:
    """Train to find each document by one of its queries, drawn anew in every epoch; the number of updates."""
    torch.manual_seed(seed)
    owners = torch.tensor(train.owners)
    documents = min(arguments.documents or len(train.documents), len(train.documents))
    batches = documents // arguments.batch
    updates = arguments.epochs * batches
    groups = [
        ([p for p in model[0].parameters() if p.requires_grad], LEARNING_RATES["lora" if arguments.lora else "whole"]),
        ([p for p in pooling_of(model).parameters() if p.requires_grad], SCORER_LEARNING_RATE),
    ]
    groups = [(its, rate) for its, rate in groups if its]
    optimizer = torch.optim.AdamW([{"params": its, "lr": rate} for its, rate in groups], weight_decay=0.0)
    scheduler = get_linear_schedule_with_warmup(optimizer, updates // 10, updates)
    loss_of = MultiVectorMultipleNegativesRankingLoss(model, similarity_fct=in_float32)
    model.train()
    progress = tqdm(total=updates, desc="train", leave=False)
    for _ in range(arguments.epochs):
        for rows in torch.randperm(documents)[: batches * arguments.batch].split(arguments.batch):
            if poolings(model):
                anneal(model, progress.n / max(1, updates - 1))
            asked = draw(owners, rows)
            features = [
                model.preprocess([train.queries[i] for i in asked], task="query"),
                model.preprocess([train.documents[i] for i in rows], task="document"),
            ]
            with torch.autocast("cpu", torch.bfloat16, enabled=best_precision() == "bf16"):
                loss = loss_of(features)
            optimizer.zero_grad()
            loss.backward()
            for its, _ in groups:
                nn.utils.clip_grad_norm_(its, 1.0)
            optimizer.step()
            scheduler.step()
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    progress.close()
    return updates


def in_float32(queries: Tensor, documents: Tensor, **masks: Tensor) -> Tensor:
    """MaxSim outside of autocast: of sums over a query's tokens, bfloat16 would leave two digits."""
    with torch.autocast("cpu", enabled=False):
        return colbert_scores(queries.float(), documents.float(), **masks)


def pooling_of(model: MultiVectorEncoder) -> nn.Module:
    return model[-2]


def evaluate(model: MultiVectorEncoder, way: Way, split: Texts) -> dict[str, dict]:
    """{name of the row: its figures} of a trained encoder: pooled as it was trained, and as `EVALUATIONS` says.

    Every text is encoded once; what differs is the pooling behind.
    """
    model.eval()
    bare = MultiVectorEncoder(modules=list(model)[:-2], device="cpu")
    documents, queries = encode(bare, "document", split.documents), encode(bare, "query", split.queries)
    owners, pooling = torch.tensor(split.owners), pooling_of(model)
    trained = [(module, module.options) for module in poolings(pooling)]
    rows = {}
    for name, options in ({way.name: {}} | EVALUATIONS.get(way.name, {})).items():
        for module, its in trained:
            module.options = dataclasses.replace(its, **options)
        start = time.process_time()
        index = pooled(pooling, documents)
        seconds = time.process_time() - start
        rows[name] = found(index, queries, owners) | size_of(index) | {"pool_ms": 1000 * seconds / len(index)}
    for module, its in trained:
        module.options = its
    return rows


def facts(split: Texts, arguments: argparse.Namespace) -> dict:
    """The sizes of a task, and the milliseconds of CPU time to encode a document before anything is trained."""
    model = encoder(arguments.encoder, most_tokens=arguments.tokens)
    some, times = split.documents[:32], []
    for _ in range(2):
        start = time.process_time()
        vectors = encode(model, "document", some)
        times.append(time.process_time() - start)
    return {
        "documents": len(split.documents),
        "queries": len(split.queries),
        "tokens": statistics.mean(vectors.lengths.tolist()),  # of those few
        "encode_ms": 1000 * min(times) / len(some),
        "queries_of_each": to_text(counts(torch.tensor(split.owners))),
    }


def parse() -> argparse.Namespace:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["bbc", "needle"])
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=DEFAULT, metavar="WAY")
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32], help="vectors of a document")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=256, help="documents are cut there; at most 512")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32, help="documents of an update, each with a query")
    parser.add_argument("--documents", type=int, help="of the training split; all by default")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train a LoRA, not the whole encoder")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="where to search")
    parser.add_argument("--encoder", default=default_encoder(), help="folder of the encoder; MiniLM by default")
    arguments = parser.parse_args()
    if min(arguments.k) < 2:
        parser.error(f"expected --k >= 2, got {min(arguments.k)}; one vector is the row of the mean")
    if arguments.documents is not None and arguments.documents < arguments.batch:
        parser.error(f"expected --documents of a batch ({arguments.batch}) or more, got {arguments.documents}")
    return arguments


def main() -> None:
    arguments = parse()
    check_tasks(arguments.tasks)
    path = arguments.results / f"retrieval-{'lora' if arguments.lora else 'trained'}.json"
    settings = {name: getattr(arguments, name) for name in ("split", "tokens", "epochs", "batch", "documents", "lora")}
    record = resume(path, "cpu", **settings)
    ways = [way for way in WAYS if way.name in arguments.ways]
    for task in arguments.tasks:
        splits = texts(task, arguments.tokens)
        of_task = record.get("tasks", {}).get(task) or facts(splits[arguments.split], arguments)
        rows = itertools.product(arguments.seeds, arguments.k, ways)
        plan = dict.fromkeys((way, k if way.k is None else way.k, seed) for seed, k, way in rows)
        done = {(row["task"], row["trained_as"], row["k"], row["seed"]) for row in record["runs"]}
        for way, k, seed in tqdm([one for one in plan if (task, one[0].name, *one[1:]) not in done], desc=task):
            torch.manual_seed(seed)
            model = build(way, k, arguments)
            start = time.process_time()
            updates = fit(model, splits["train"], seed, arguments)
            seconds = time.process_time() - start
            same = {"task": task, "trained_as": way.name, "k": k, "seed": seed, "trained": True, "updates": updates,
                    "train_seconds": seconds}  # fmt: skip
            evaluated = evaluate(model, way, splits[arguments.split])
            record = resume(path, "cpu", **settings)  # again: other tasks or seeds may be running beside this one
            record.setdefault("tasks", {})[task] = of_task
            record["runs"] += [same | {"way": name} | figures for name, figures in evaluated.items()]
            save(record, path)
    record = resume(path, "cpu", **settings)
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
