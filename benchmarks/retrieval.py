"""A multi-vector index that keeps k vectors a document: what does it still find?

python benchmarks/retrieval.py [--tasks bbc needle] [--k 8 32] [--seeds 0 1 2] [--results folder]
python benchmarks/retrieval.py --tune    # candidates for the settings in WAYS, on the validation split

Late interaction keeps a vector for each token and scores by MaxSim: each token of the query looks for its best match
among the document's. The index grows with the corpus, so documents are pooled; queries are not. Two tasks, see
retrieval_tasks.py: articles any sentence of which may be queried, so that nothing may be left out, and a few sentences
of an article among text that no query is about. The encoder (MiniLM) is frozen and its token vectors are computed
once. Scorers learn by cross-entropy over the MaxSim of the documents in a batch, sentence-transformers'
`MultiVectorMultipleNegativesRankingLoss`. Writes benchmarks/results/retrieval.json after every run, so that it can be
interrupted, and the tables beside it as .md.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from record import RESULTS, CommandLine, publish, resume, save
from retrieval_tasks import QUERIES, Split, Vectors, encoder, texts, token_vectors
from sentence_transformers.multi_vector_encoder.modules import (
    BaseTokenPooling,
    HierarchicalTokenPooling,
    LambdaTokenPooling,
)
from sentence_transformers.util.similarity import maxsim
from torch import Tensor, nn
from tqdm.auto import tqdm

from shtopk import anneal
from shtopk.integrations.sentence_transformers import TopKTokenPooling
from shtopk.models import default_encoder

CACHE = RESULTS.parent / ".cache"
BATCH = 48  # documents of an update, each with one of its queries
EPOCHS = 6
BYTES = 2  # of a number in the index
TUNING_SEED, TUNING_K = 100, 8


@dataclass(frozen=True, eq=False)
class Way:
    """A row of the table.

    Attributes:
        name: as the table shows it.
        options: arguments of `TopKTokenPooling` that differ from its defaults.
        learning_rate: of the scorer; None: no scorer, or one that is not trained.
        pool: token vectors [n, d] and k -> [k, d], for a way that is not `TopKTokenPooling`.
        k: vectors of a document where it is not the table's k; ALL: one for each token.
    """

    name: str
    options: dict = field(default_factory=dict)
    learning_rate: float | None = None
    pool: Callable[[Tensor, int], Tensor] | None = None
    k: int | None = None

    def build(self, size: int, k: int) -> BaseTokenPooling:
        if self.pool is None:
            return TopKTokenPooling(size, k, **self.options)
        return LambdaTokenPooling(lambda embedding: self.pool(embedding, k))


def ward(embedding: Tensor, k: int) -> Tensor:
    """sentence-transformers' pooling, with the factor that leaves k clusters of this document."""
    factor = max(1.0, len(embedding) / (k + 0.5))
    return HierarchicalTokenPooling(factor, num_protected_tokens=0).pool_one(F.normalize(embedding, dim=-1))


def chunks(embedding: Tensor, k: int) -> Tensor:
    """Means of k stretches of equal length."""
    return torch.stack([part.mean(0) for part in embedding.tensor_split(min(k, len(embedding)))])


ALL = 0  # k of the whole index
FIXED = {"temperature": 1.0}
WAYS = [  # temperatures and learning rates: the best mean MRR of the two tasks in retrieval-tuning.md
    Way("all tokens", pool=lambda embedding, k: embedding, k=ALL),
    Way("successive halving", learning_rate=1e-2),
    Way("successive halving, fixed", FIXED, learning_rate=1e-2),
    Way("iterative top-k", {"operator": "iterative"}, learning_rate=3e-2),
    Way("random scorer, frozen", {"operator": "hard"}),
    Way("first k tokens", {"operator": "hard", "scorer": "first"}),
    Way("means of k stretches", pool=chunks),
    Way("Ward clusters", pool=ward),
    Way("mean of all tokens", pool=chunks, k=1),
]
HAS_SEEDS = {way.name for way in WAYS if way.pool is None and way.options.get("scorer") != "first"}
CANDIDATES = [
    Way(f"{name}, {rate:g}", options, rate)
    for (name, options), rate in itertools.product(
        {
            "successive halving": {},
            "successive halving, to 0.5": {"initial_temperature": 4.0, "temperature": 0.5},
            "successive halving, fixed": FIXED,
            "successive halving, fixed 4": {"temperature": 4.0},
            "iterative top-k": {"operator": "iterative"},
            "iterative top-k, annealed": {"operator": "iterative", "initial_temperature": 4.0, "temperature": 0.1},
        }.items(),
        (1e-2, 3e-2),
    )
]


def run(way: Way, k: int, seed: int, splits: dict[str, Split], split: str) -> dict:
    """Train a way's scorer, if it has one that learns, and search with its index."""
    torch.manual_seed(seed)
    pooling = way.build(splits["train"].documents.values.shape[-1], k)
    start = time.perf_counter()
    if way.learning_rate is not None:
        fit(pooling, splits["train"], way.learning_rate)
    trained = time.perf_counter()
    index = pooled(pooling.eval(), splits[split].documents)
    end = time.perf_counter()
    size = statistics.mean(len(document) for document in index)
    return {
        **found(index, splits[split].queries),
        "vectors": size,
        "bytes": size * index[0].shape[-1] * BYTES,
        "train_seconds": trained - start,
        "pool_ms": 1000 * (end - trained) / len(index),
    }


def fit(pooling: TopKTokenPooling, train: Split, learning_rate: float) -> None:
    """Train the scorer to find each document by one of its queries, drawn anew in every epoch."""
    count = len(train.documents.lengths)
    updates = EPOCHS * (count // BATCH)
    optimizer = torch.optim.AdamW(pooling.parameters(), weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, updates, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    pooling.train()
    update = 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(count)[: count // BATCH * BATCH].split(BATCH):
            anneal(pooling, update / (updates - 1))
            documents = pooling(train.documents.batch(rows))
            queries = train.queries.batch(rows * QUERIES + torch.randint(QUERIES, rows.shape))
            scores = maxsim(
                F.normalize(queries["token_embeddings"], dim=-1),
                F.normalize(documents["token_embeddings"], dim=-1),
                queries["attention_mask"],
                documents["attention_mask"],
            )
            loss = F.cross_entropy(scores, torch.arange(len(rows)))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(pooling.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            update += 1


@torch.inference_mode()
def pooled(pooling: BaseTokenPooling, documents: Vectors) -> list[Tensor]:
    """The index: unit vectors [k, d] of each document."""
    index = []
    for rows in torch.arange(len(documents.lengths)).split(32):
        out = pooling(documents.batch(rows))
        units = F.normalize(out["token_embeddings"], dim=-1)
        index += [unit[mask] for unit, mask in zip(units, out["attention_mask"].bool(), strict=True)]
    return index


@torch.inference_mode()
def found(index: list[Tensor], queries: Vectors) -> dict:
    """How often a query's document is the first, among the first ten, and its mean reciprocal rank."""
    ranks = []
    vectors = nn.utils.rnn.pad_sequence(index, batch_first=True)
    filled = torch.arange(vectors.shape[1]) < torch.tensor([len(document) for document in index]).unsqueeze(1)
    for rows in tqdm(torch.arange(len(queries.lengths)).split(64), desc="search", leave=False):
        batch = queries.batch(rows)
        scores = maxsim(F.normalize(batch["token_embeddings"], dim=-1), vectors, batch["attention_mask"], filled)
        own = scores.gather(1, (rows // QUERIES).unsqueeze(1))
        ranks.append((scores >= own).sum(1))  # 1 is best
    rank = torch.cat(ranks).float()
    hits = {f"recall@{most}": float((rank <= most).float().mean()) for most in (1, 10)}
    return hits | {"mrr": float((1 / rank).mean())}


COLUMNS = {  # key of a run -> head of the column, decimals, whether the spread is shown
    "recall@1": ("recall@1", 3, True),
    "recall@10": ("recall@10", 3, True),
    "mrr": ("MRR", 3, True),
    "vectors": ("vectors", 0, False),
    "bytes": ("bytes", 0, False),
    "pool_ms": ("pooling, ms", 2, False),
    "train_seconds": ("training s", 0, False),
}


def table(record: dict) -> str:
    """Markdown: a table for each task, a row for each k and way, mean ± standard deviation over the seeds."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in record["runs"]):
        runs = [row for row in record["runs"] if row["task"] == task]
        sizes = sorted({row["k"] for row in runs})
        rows = [
            (k, name, [row for row in runs if (row["k"], row["way"]) == (k, name)])
            for k in [*(k for k in sizes if k == ALL), *(k for k in reversed(sizes) if k != ALL)]
            for name in dict.fromkeys(row["way"] for row in runs)
        ]
        facts = record["tasks"][task]
        lines = [
            f"**{task}**: {facts['documents']} documents of {facts['tokens']:.0f} tokens, {facts['queries']} queries, "
            f"{facts['encode_ms']:.0f} ms to encode a document\n",
            f"| pooling | k | {' | '.join(head for head, _, _ in COLUMNS.values())} |",
            "|---|--:|" + "--:|" * len(COLUMNS),
        ]
        lines += [
            f"| {name} | {k or 'all'} | {' | '.join(_cell(group, key) for key in COLUMNS)} |"
            for k, name, group in rows
            if group
        ]
        parts.append("\n".join(lines))
    seeds = ", ".join(map(str, sorted({row["seed"] for row in record["runs"]})))
    return "\n\n".join(parts) + (
        f"\n\nVectors and bytes (float16) of a document in the index; time to pool one, beside encoding it. "
        f"{record['split'].title()} split, mean ± standard deviation over seeds {seeds} of what is drawn or trained. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def summary(record: dict) -> str:
    """Markdown for the README: recall@1 of every way, for each task and k."""
    runs = record["runs"]
    tasks = sorted({row["task"] for row in runs}, reverse=True)
    sizes = sorted({row["k"] for row in runs} - {ALL, 1})
    heads = [f"{task}, k = {k}" for task in tasks for k in sizes]
    lines = [f"| recall@1 | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for name in dict.fromkeys(row["way"] for row in runs):
        cells = []
        for task, k in itertools.product(tasks, sizes):
            rows = [x for x in runs if (x["task"], x["way"]) == (task, name) and x["k"] in (k, ALL, 1)]
            cells.append(_cell([x for x in rows if x["k"] == k] or rows, "recall@1"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n`{record['command']}` on {record['device']}, torch {record['torch']}.\n"


def _cell(runs: list[dict], key: str) -> str:
    _, decimals, with_spread = COLUMNS[key]
    values = [row[key] for row in runs]
    if key == "train_seconds" and not any(row["trained"] for row in runs):
        return ""
    mean = f"{statistics.mean(values):,.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if with_spread and len(values) > 1 else mean


def facts(task: str, splits: dict[str, Split], split: str) -> dict:
    """The sizes of a task, and the milliseconds to encode a document."""
    model, documents = encoder(default_encoder()), texts(task)[split].documents[:32]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.encode_document(documents, batch_size=16)
        times.append(time.perf_counter() - start)
    data = splits[split]
    return {
        "documents": len(data.documents.lengths),
        "queries": len(data.queries.lengths),
        "tokens": float(data.documents.lengths.float().mean()),
        "encode_ms": 1000 * min(times) / len(documents),
    }


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--tasks", nargs="+", choices=["bbc", "needle"], default=["bbc", "needle"])
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32], help="vectors of a document")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tune", action="store_true", help="every candidate's settings, on the validation split")
    arguments = parser.parse_args()
    if min(arguments.k) < 1:
        parser.error(f"expected --k >= 1, got {min(arguments.k)}")
    path = arguments.results / f"retrieval{'-tuning' * arguments.tune}.json"
    split = "validation" if arguments.tune else "test"
    record = resume(path, "cpu", split=split)
    for task in arguments.tasks:
        splits = token_vectors(task, default_encoder(), CACHE)
        record.setdefault("tasks", {}).setdefault(task, facts(task, splits, split))
        if arguments.tune:
            plan = [(way, TUNING_K, TUNING_SEED) for way in CANDIDATES]
        else:
            plan = list(dict.fromkeys(
                (way, k if way.k is None else way.k, seed)
                for seed, k, way in itertools.product(arguments.seeds, arguments.k, WAYS)
                if seed == arguments.seeds[0] or way.name in HAS_SEEDS
            ))  # fmt: skip
        done = {(row["task"], row["way"], row["k"], row["seed"]) for row in record["runs"]}
        plan = [(way, k, seed) for way, k, seed in plan if (task, way.name, k, seed) not in done]
        for way, k, seed in tqdm(plan, desc=task):
            new = {"task": task, "way": way.name, "k": k, "seed": seed, "trained": way.learning_rate is not None}
            record["runs"].append(new | run(way, k, seed, splits, split))
            save(record, path)
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
