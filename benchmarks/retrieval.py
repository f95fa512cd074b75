"""A multi-vector index that keeps k vectors a document: what does it still find?

python benchmarks/retrieval.py [--tasks bbc needle docstrings rfc] [--k 8 32] [--seeds 0 1 2] [--results folder]
python benchmarks/retrieval.py --ways "iterative top-k" --seeds 3 4    # more seeds where three do not settle
python benchmarks/retrieval.py --tune    # candidates for the settings in WAYS, on the validation split

Late interaction keeps a vector for each token and scores by MaxSim: each token of the query looks for its best match
among the document's. The index grows with the corpus, so documents are pooled; queries are not. The tasks, see
retrieval_tasks.py: articles any sentence of which may be queried, so that nothing may be left out; a few sentences of
an article among text that no query is about; functions by their summary lines; RFCs by sentences of their abstracts.
The encoder (MiniLM) is frozen and its token vectors are computed once; retrieval_trained.py trains it too. Scorers
learn by cross-entropy over the MaxSim of the documents in a batch, sentence-transformers'
`MultiVectorMultipleNegativesRankingLoss`. Writes benchmarks/results/retrieval.json after every run, so that it can be
interrupted, with the ranks of the right documents, and the tables beside it as .md.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from ranking import metrics, to_text
from record import RESULTS, CommandLine, publish, resume, save
from retrieval_table import table
from retrieval_tasks import TASKS, Split, Vectors, check, counts, draw, encoder, texts, token_vectors
from retrieval_ways import GRID, WAYS, Way, candidates
from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling
from sentence_transformers.util.similarity import maxsim
from torch import Tensor, nn
from tqdm.auto import tqdm

from shtopk.models import default_encoder

CACHE = RESULTS.parent / ".cache"
BATCH = 48  # documents of an update, each with one of its queries
EPOCHS = 6
BYTES = 2  # of a number in the index
TUNING_SEEDS, TUNING_K = (100, 101, 102), 8


def run(way: Way, k: int, seed: int, splits: dict[str, Split], split: str) -> dict:
    """Train a way's scorer, if it has one that learns, and search with its index."""
    torch.manual_seed(seed)
    pooling = way.build(splits["train"].documents.values.shape[-1], k)
    start = time.process_time()  # what this process computes, whatever else the machine does
    if way.learning_rate is not None:
        fit(pooling, splits["train"], way.learning_rate)
    trained = time.process_time()
    index = pooled(pooling.eval(), splits[split].documents)
    end = time.process_time()
    return {
        **found(index, splits[split].queries, splits[split].owners),
        **size_of(index),
        "train_seconds": trained - start,
        "pool_ms": 1000 * (end - trained) / len(index),
    }


def fit(pooling: BaseTokenPooling, train: Split, learning_rate: float) -> None:
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
            for part in pooling.modules():
                if hasattr(part, "progress"):  # a temperature that may fall
                    part.progress = update / (updates - 1)
            documents = pooling(train.documents.batch(rows))
            queries = train.queries.batch(draw(train.owners, rows))
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
def found(index: list[Tensor], queries: Vectors, owners: Tensor) -> dict:
    """How high the right documents rank: the metrics, and the ranks themselves."""
    ranks: list[int] = []
    vectors = nn.utils.rnn.pad_sequence(index, batch_first=True)
    filled = torch.arange(vectors.shape[1]) < torch.tensor([len(document) for document in index]).unsqueeze(1)
    for rows in tqdm(torch.arange(len(queries.lengths)).split(64), desc="search", leave=False):
        batch = queries.batch(rows)
        scores = maxsim(F.normalize(batch["token_embeddings"], dim=-1), vectors, batch["attention_mask"], filled)
        own = scores.gather(1, owners[rows].unsqueeze(1))
        ranks += (scores >= own).sum(1).tolist()  # 1 is best; a tie is none
    return metrics(ranks) | {"ranks": to_text(ranks)}


def size_of(index: list[Tensor]) -> dict:
    """Vectors and bytes of a document, on average."""
    vectors = statistics.mean(len(document) for document in index)
    return {"vectors": vectors, "bytes": vectors * index[0].shape[-1] * BYTES}


def facts(task: str, splits: dict[str, Split], split: str) -> dict:
    """The sizes of a task, and the milliseconds of CPU time to encode a document."""
    model, documents = encoder(default_encoder()), texts(task)[split].documents[:32]
    times = []
    for _ in range(3):
        start = time.process_time()
        model.encode_document(documents, batch_size=16)
        times.append(time.process_time() - start)
    return sizes(splits[split]) | {"encode_ms": 1000 * min(times) / len(documents)}


def sizes(data: Split) -> dict:
    """How many documents, queries and tokens there are, and the number of queries of each document as text."""
    return {
        "documents": len(data.documents.lengths),
        "queries": len(data.queries.lengths),
        "tokens": float(data.documents.lengths.float().mean()),
        "queries_of_each": to_text(counts(data.owners)),
    }


def planned(seeds: list[int], ks: list[int], ways: list[Way]) -> Iterator[tuple[Way, int, int]]:
    """Each way with each k and seed, those of which nothing is drawn with the first seed alone."""
    rows = [(seed, way, k if way.k is None else way.k) for seed, k, way in itertools.product(seeds, ks, ways)]
    return ((way, k, seed) for seed, way, k in dict.fromkeys(rows) if seed == seeds[0] or way.is_drawn)


def check_tasks(tasks: list[str]) -> None:
    """Exit with one line if the corpus of a task is not there."""
    for task in tasks:
        try:
            check(task)
        except ValueError as error:
            sys.exit(f"{task}: {error}")


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["bbc", "needle"])
    names = [way.name for way in WAYS]
    parser.add_argument("--ways", nargs="+", choices=names, default=names, metavar="WAY", help="rows; all by default")
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32], help="vectors of a document")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--name", default="retrieval", help="of the record, whose runs all share a table")
    parser.add_argument("--tune", action="store_true", help="every candidate's settings, on the validation split")
    arguments = parser.parse_args()
    if min(arguments.k) < 2:
        parser.error(f"expected --k >= 2, got {min(arguments.k)}; one vector is the row of the mean")
    check_tasks(arguments.tasks)
    path = arguments.results / f"{arguments.name}{'-tuning' * arguments.tune}.json"
    split = "validation" if arguments.tune else "test"
    record = resume(path, "cpu", split=split)
    for task in arguments.tasks:
        splits = token_vectors(task, default_encoder(), CACHE)
        of_task = record.get("tasks", {}).get(task) or facts(task, splits, split)
        of_task |= sizes(splits[split])
        if arguments.tune:
            plan = [(way, TUNING_K, seed) for seed in TUNING_SEEDS for row in GRID for way in candidates(row)]
        else:
            plan = list(planned(arguments.seeds, arguments.k, [way for way in WAYS if way.name in arguments.ways]))
        done = {(row["task"], row["way"], row["k"], row["seed"]) for row in record["runs"]}
        plan = [(way, k, seed) for way, k, seed in plan if (task, way.name, k, seed) not in done]
        for way, k, seed in tqdm(plan, desc=task):
            new = {"task": task, "way": way.name, "k": k, "seed": seed, "trained": way.learning_rate is not None}
            new |= run(way, k, seed, splits, split)
            record = resume(path, "cpu", split=split)  # again: other tasks may be running beside this one
            record.setdefault("tasks", {})[task] = of_task
            record["runs"].append(new)
            save(record, path)
    record = resume(path, "cpu", split=split)
    save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
