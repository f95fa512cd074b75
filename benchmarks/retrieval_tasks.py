"""Retrieval from the offline corpora: documents, the queries that each has to answer, and the token vectors of both.

bbc: an article without three of its sentences; each of these asks for it. A news article tells many things and a
sentence asks for one of them, which is what an index of several vectors a document is for.
needle: one or two sentences of an article hidden in 500 tokens of library documentation; three other sentences of
the article ask for it. Most of such a document is text that nobody asks about.
docstrings: the summary line of a docstring asks for the function: its signature and the rest of its docstring.
rfc: up to three sentences of the abstract of an RFC, the Internet's technical notes, ask for the rest of it, which is
cut where the encoder ends. Needs `make rfcs`.

A query has one right answer: of articles that share a sentence one stays, and sentences that two abstracts share ask
for neither. The splits are those of tasks/.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from record import ROOT
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor

from shtopk.tasks import DataArguments, bbc, get_task, needle
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise, shuffled
from shtopk.training.experiment import best_precision

QUERIES = 3  # of a document at most; docstrings have one
QUERY_WORDS = (10, 40)
MOST_TOKENS = 512  # of a document; MiniLM has as many positions
NEEDLE_TOKENS, NEEDLE_SIZES = 500, {"train": 1000, "validation": 200, "test": 400}
MOST_TRAINING = 1500  # documents of docstrings and rfc, about as many as bbc has
RFC_FOLDER = ROOT / "data" / "rfc"  # where `make rfcs` puts them


class Texts(NamedTuple):
    documents: list[str]
    queries: list[str]  # all of the first document, then all of the second, ...
    owners: list[int]  # the number of each query's document

    @classmethod
    def of(cls, pairs: list[tuple[str, list[str]]]) -> "Texts":
        """From documents and their queries; documents that have none are left out."""
        pairs = [(document, queries) for document, queries in pairs if queries]
        owners = [i for i, (_, queries) in enumerate(pairs) for _ in queries]
        return cls([document for document, _ in pairs], [query for _, its in pairs for query in its], owners)


class Vectors(NamedTuple):
    """Token vectors of many texts, text after text."""

    values: Tensor  # [T, d] float16
    lengths: Tensor  # [N]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Features of some texts as a sentence-transformers model has them behind its Transformer."""
        lengths = self.lengths[rows].unsqueeze(-1)
        place = torch.arange(int(lengths.max()))
        mask = place < lengths
        index = ((self.lengths.cumsum(0) - self.lengths)[rows].unsqueeze(-1) + place).masked_fill(~mask, 0)
        return {"token_embeddings": self.values[index].float(), "attention_mask": mask}


class Split(NamedTuple):
    documents: Vectors
    queries: Vectors
    owners: Tensor  # [queries] the number of each query's document, which never falls


def counts(owners: Tensor) -> Tensor:
    """[documents] how many queries each has."""
    return owners.bincount()


def draw(owners: Tensor, rows: Tensor) -> Tensor:
    """The number of one query of each of these documents, drawn at random."""
    its = counts(owners)
    return (its.cumsum(0) - its)[rows] + (torch.rand(rows.shape) * its[rows]).long()


def check(task: str) -> None:
    """Raise ValueError, in one line, if the corpus of a task is not there. None of it is read."""
    arguments = _arguments(task)
    get_task(arguments).check(arguments)


def texts(task: str, most_tokens: int = MOST_TOKENS) -> dict[str, Texts]:
    """train, validation and test -> documents and queries of a task in `TASKS`.

    Args:
        most_tokens: where documents will be cut; those of needle are made so long that they are not.
    """
    return TASKS[task](most_tokens)


def _arguments(task: str) -> DataArguments:
    return DataArguments(
        task=task,
        rfc_folder=str(RFC_FOLDER) if task == "rfc" else None,
        max_train_samples=MOST_TRAINING if task in ("docstrings", "rfc") else None,
    )


def _bbc(most_tokens: int) -> dict[str, Texts]:
    return _articles({})


def _needle(most_tokens: int) -> dict[str, Texts]:
    room = MOST_TOKENS - NEEDLE_TOKENS  # for [CLS], [SEP] and the edges of sentences
    return _articles(needle.generate(min(NEEDLE_TOKENS, most_tokens - room), NEEDLE_SIZES))


def _articles(hidden: dict) -> dict[str, Texts]:
    """Articles without their queries, or documents of the task needle in which parts of them are hidden."""
    splits = {}
    for name, part in bbc.split_articles().items():
        keys = bbc.stories([article.text for article in part])
        pairs = []
        seen: set[str] = set()
        for i, article in enumerate(part[: len(hidden[name])] if hidden else part):
            headline, _, body = article.text.partition("\n")
            parts = list(sentences(body))
            row = hidden[name][i] if hidden else None
            evidence = row["text"][row["evidence_start"] : row["evidence_end"]] if row else ""
            chosen = _asked([s for s in parts if s not in evidence])
            if keys[i] in seen or len(chosen) < QUERIES:
                continue
            seen.add(keys[i])
            pairs.append(
                (row["text"] if row else " ".join([headline, *(s for s in parts if s not in chosen)]), chosen)
            )
        splits[name] = Texts.of(pairs)
    return splits


def _docstrings(most_tokens: int) -> dict[str, Texts]:
    return {
        name: Texts.of([(text, [summary]) for text, summary in rows]) for name, rows in _rows("docstrings").items()
    }


def _rfc(most_tokens: int) -> dict[str, Texts]:
    splits = {}
    for name, rows in _rows("rfc").items():
        abstracts = [list(dict.fromkeys(map(normalise, sentences(abstract)))) for _, abstract in rows]
        times = Counter(sentence for abstract in abstracts for sentence in abstract)
        asked = [_asked([s for s in abstract if times[s] == 1]) for abstract in abstracts]
        splits[name] = Texts.of([(text, queries) for (text, _), queries in zip(rows, asked, strict=True)])
    return splits


def _asked(parts: list[str]) -> list[str]:
    """Up to QUERIES of these sentences, neither short nor long."""
    fitting = [s for s in parts if QUERY_WORDS[0] <= len(s.split()) <= QUERY_WORDS[1]]
    return [fitting[j] for j in shuffled(fitting, seed=0)[:QUERIES]]


def _rows(task: str) -> dict[str, list[tuple[str, str]]]:
    """{split: (text, summary) of each document} of a task that summarises."""
    arguments = _arguments(task)
    data = get_task(arguments).load(arguments)
    return {name: list(zip(rows["text"][:], rows["summary"][:], strict=True)) for name, rows in data.items()}


TASKS: dict[str, Callable[[int], dict[str, Texts]]] = {
    "bbc": _bbc,
    "needle": _needle,
    "docstrings": _docstrings,
    "rfc": _rfc,
}


def encoder(folder: Path, *modules: torch.nn.Module, most_tokens: int = MOST_TOKENS) -> MultiVectorEncoder:
    """The encoder in a folder as it is, and what comes behind; texts are cut to so many tokens."""
    transformer = Transformer(str(folder))
    transformer.max_seq_length = most_tokens
    return MultiVectorEncoder(modules=[transformer, MultiVectorMask(), *modules], device="cpu")


def token_vectors(task: str, folder: Path, cache: Path) -> dict[str, Split]:
    """Encode every text once, or read what an earlier run left in the cache."""
    splits, model = {}, None
    for name, (documents, queries, owners) in texts(task).items():
        key = hashlib.sha256("\0".join([*documents, *queries, str(MOST_TOKENS)]).encode()).hexdigest()[:16]
        path = cache / f"retrieval-{task}-{name}-{key}.safetensors"
        if not path.exists():
            model = model or encoder(folder)
            cache.mkdir(parents=True, exist_ok=True)
            its = [encode(model, "document", documents), encode(model, "query", queries)]
            tensors = {}
            for kind, vectors in zip(("documents", "queries"), its, strict=True):
                tensors |= {kind: vectors.values, f"{kind}.lengths": vectors.lengths}
            save_file(tensors, path)
        tensors = load_file(path)
        vectors = [Vectors(tensors[kind], tensors[f"{kind}.lengths"]) for kind in ("documents", "queries")]
        splits[name] = Split(*vectors, torch.tensor(owners))
    return splits


def encode(model: MultiVectorEncoder, kind: str, its: list[str]) -> Vectors:
    """The vectors that a model has of texts.

    Args:
        kind: "document" or "query".
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=best_precision() == "bf16"):
        found = getattr(model, f"encode_{kind}")(its, batch_size=16, show_progress_bar=True)
    return Vectors(torch.cat(found).half(), torch.tensor([len(vectors) for vectors in found]))
