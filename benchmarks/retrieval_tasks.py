"""Retrieval from the offline corpora: documents, three queries for each, and the token vectors of both.

bbc: an article without three of its sentences; each of these asks for it. A news article tells many things and a
sentence asks for one of them, which is what an index of several vectors a document is for.
needle: one or two sentences of an article hidden in 500 tokens of library documentation; three other sentences of
the article ask for it. Most of such a document is text that nobody asks about.

Of articles that share a sentence one stays, so that a query has one right answer. The splits are those of
tasks/bbc.py, which keeps such articles together.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor

from shtopk.tasks import bbc, needle
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import shuffled
from shtopk.training.experiment import best_precision

QUERIES = 3  # for each document
QUERY_WORDS = (10, 40)
MOST_TOKENS = 512  # of a document; MiniLM has as many positions
NEEDLE_TOKENS, NEEDLE_SIZES = 500, {"train": 1000, "validation": 200, "test": 400}


class Texts(NamedTuple):
    documents: list[str]
    queries: list[str]  # those of document i at QUERIES * i and behind


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


def texts(task: str) -> dict[str, Texts]:
    """train, validation and test -> documents and queries of the task "bbc" or "needle"."""
    articles = bbc.split_articles()
    hidden = needle.generate(NEEDLE_TOKENS, NEEDLE_SIZES) if task == "needle" else {}
    splits = {}
    for name, part in articles.items():
        keys = bbc.stories([article.text for article in part])
        documents, queries = [], []
        seen: set[str] = set()
        for i, article in enumerate(part[: len(hidden[name])] if hidden else part):
            headline, _, body = article.text.partition("\n")
            parts = list(sentences(body))
            row = hidden[name][i] if hidden else None
            evidence = row["text"][row["evidence_start"] : row["evidence_end"]] if row else ""
            fitting = [s for s in parts if QUERY_WORDS[0] <= len(s.split()) <= QUERY_WORDS[1] and s not in evidence]
            chosen = [fitting[j] for j in shuffled(fitting, seed=0)[:QUERIES]]
            if keys[i] in seen or len(chosen) < QUERIES:
                continue
            seen.add(keys[i])
            documents.append(row["text"] if row else " ".join([headline, *(s for s in parts if s not in chosen)]))
            queries += chosen
        splits[name] = Texts(documents, queries)
    return splits


def encoder(folder: Path, *modules: torch.nn.Module) -> MultiVectorEncoder:
    """The encoder in a folder as it is, and what comes behind."""
    transformer = Transformer(str(folder))
    transformer.max_seq_length = MOST_TOKENS
    return MultiVectorEncoder(modules=[transformer, MultiVectorMask(), *modules], device="cpu")


def token_vectors(task: str, folder: Path, cache: Path) -> dict[str, Split]:
    """Encode every text once, or read what an earlier run left in the cache."""
    splits, model = {}, None
    for name, (documents, queries) in texts(task).items():
        key = hashlib.sha256("\0".join([*documents, *queries, str(MOST_TOKENS)]).encode()).hexdigest()[:16]
        path = cache / f"retrieval-{task}-{name}-{key}.safetensors"
        if not path.exists():
            model = model or encoder(folder)
            cache.mkdir(parents=True, exist_ok=True)
            tensors = {}
            for kind, its, encode in (
                ("documents", documents, model.encode_document),
                ("queries", queries, model.encode_query),
            ):
                with torch.autocast("cpu", torch.bfloat16, enabled=best_precision() == "bf16"):
                    found = encode(its, batch_size=16, show_progress_bar=True)
                tensors[kind] = torch.cat(found).half()
                tensors[f"{kind}.lengths"] = torch.tensor([len(vectors) for vectors in found])
            save_file(tensors, path)
        tensors = load_file(path)
        splits[name] = Split(*(Vectors(tensors[kind], tensors[f"{kind}.lengths"]) for kind in Split._fields))
    return splits
