"""The code of others, from packages and from folders, called as one calls it to pool.

Each function takes the folders that were named, by the option that names them, and returns a `Pool`. It raises what
importing the code raises, or `Absent`.
"""

import contextlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rivals.gates import every
from rivals.scored import folded
from torch import Tensor

Pool = Callable[..., Tensor]
"""(values [B, n, d], scores, k, temperature, mask [B, n] or None) -> [B, k, d]; scores [B, n], or [B, n, k]."""


class Absent(Exception):
    """Why a peer cannot be had here, in a line."""


def authors(folders: dict[str, Path]) -> Pool:
    """The operator's authors' own code, github.com/applicaai/successive-halving-topk, on scores in (0, 1)."""
    module = module_of(folders.get("authors"), "models/successive_halving_topk.py", "--authors FOLDER")

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
        operator = module.TopKOperator()
        operator.set_config(module.TopKConfig(input_len=scores.shape[1], pooled_len=k, base=20))
        return operator(values, scores.sigmoid().unsqueeze(-1))[0]

    return pool


def lapsum_of_authors(folders: dict[str, Path]) -> Pool:
    """The weights of github.com/gmum/LapSum, folded to k slots as ours are."""
    if "lapsum" not in folders:
        raise Absent("no folder was named (--lapsum FOLDER)")
    with mock.patch.object(sys, "path", [str(folders["lapsum"]), *sys.path]):
        soft_topk = importlib.import_module("lapsum.topk").soft_topk

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
        weights = soft_topk(scores, torch.full_like(scores[:, :1], k), temperature)
        return folded(values, scores, weights, k, every(scores, None)).values

    return pool


def module_of(folder: Path | None, path: str, option: str) -> Any:
    """A module from a file of a folder that was named."""
    if folder is None:
        raise Absent(f"no folder was named ({option})")
    if not (folder / path).is_file():
        raise Absent(f"no {path} in {folder}")
    spec = importlib.util.spec_from_file_location("peer_in_a_folder", folder / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def colt5_topk(folders: dict[str, Path]) -> Pool:
    """The tokens that its `topk` chooses, times its gates."""
    topk = importlib.import_module("colt5_attention").topk

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float, mask: Tensor | None = None) -> Tensor:
        out = topk(scores, k, eps=temperature, mask=mask)
        kept = values.gather(1, out.indices.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return out.gates.unsqueeze(-1) * kept

    return pool


def coordinate_descent(folders: dict[str, Path]) -> Pool:
    """Its weights as they are, of 50 iterations, folded to k slots."""
    descent = importlib.import_module("colt5_attention").coor_descent

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float, mask: Tensor | None = None) -> Tensor:
        weights = descent(scores, n_iters=50, k=k, eps=temperature, mask=mask)
        return folded(values, scores, weights, k, every(scores, mask)).values

    return pool


def entmax_attention(folders: dict[str, Path]) -> Pool:
    """k queries, each the 1.5-entmax of its scores: weights of exactly zero for most tokens."""
    entmax15 = importlib.import_module("entmax").entmax15
    return lambda values, scores, k, temperature: entmax15(scores / temperature, dim=1).transpose(1, 2) @ values


def soft_sort(folders: dict[str, Path]) -> Pool:
    """The first k rows of the relaxed permutation matrix."""
    module = quietly("difftopk.softsort")
    return lambda values, scores, k, temperature: module.SoftSort(tau=temperature)(scores)[:, :k] @ values


def sorting_network(folders: dict[str, Path]) -> Pool:
    """`DiffTopkNet` with a bitonic network and its own steepness divided by the temperature."""
    module = quietly("difftopk")
    network = cache(lambda n, k: module.DiffTopkNet("bitonic", n, k))

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
        net = network(scores.shape[1], k)
        net.steepness = 10.0 / temperature
        return net(scores)[1].transpose(1, 2) @ values

    return pool


def noised_topk(folders: dict[str, Path]) -> Pool:
    module = importlib.import_module("pytopk")
    return lambda values, scores, k, temperature: module.NoisedTopK(k, epsilon=temperature)(scores)


def quietly(name: str) -> Any:
    """A module that prints while it is imported."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)


def nothing_known(package: str) -> Callable[[dict], Pool]:
    """Of a package that is looked for, and that this script could not call."""

    def load(folders: dict[str, Path]) -> Pool:
        importlib.import_module(package)
        raise Absent("it is there, but nothing here calls it")

    return load


def ward(linkage: str) -> Callable[[dict], Pool]:
    """sentence-transformers' HierarchicalTokenPooling, a document at a time, with the linkage of this module."""

    def load(folders: dict[str, Path]) -> Pool:
        chosen = importlib.import_module(linkage).linkage
        ways = importlib.import_module("retrieval_ways")
        theirs = importlib.import_module("sentence_transformers.multi_vector_encoder.modules.token_pooling")

        def pool(values: Tensor, scores: Tensor, k: int, temperature: float, mask: Tensor | None = None) -> Tensor:
            rows = values if mask is None else [row[real] for row, real in zip(values, mask, strict=True)]
            with mock.patch.object(theirs, "_ward_linkage_fn", return_value=chosen):
                return torch.nn.utils.rnn.pad_sequence([ways.ward(row, k) for row in rows], batch_first=True)

        return pool

    return load
