"""What people would take instead of this library, called as one calls it: the rows of the tables of peers.py."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from literal import gather, literal_successive_halving
from peers_packages import (
    Absent,
    Pool,
    authors,
    colt5_topk,
    coordinate_descent,
    entmax_attention,
    lapsum_of_authors,
    noised_topk,
    nothing_known,
    soft_sort,
    sorting_network,
    ward,
)
from rivals.bipartite import BipartiteMerging
from rivals.gates import dftopk, every, lapsum
from rivals.perturbed import perturbed_topk
from torch import Tensor

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

ANNEALED = ((4.0, 0.0625), (16.0, 0.0625))  # temperatures to try, from start to end
OURS, FOLDER = "this library", "a folder"


@dataclass(frozen=True)
class Way:
    """A row.

    Attributes:
        load: the folders that were named -> the way to pool. Raises what importing it raises, or `Absent`.
        source: of the code: a name of PyPI, `OURS`, `FOLDER`, or what of benchmarks/ was written after a paper.
        queries: a score for each slot and token instead of one a token.
        estimate: what its gradient is where that is by design not the derivative of the result.
        most: n, above which it is not timed, as its memory grows with n times n.
        temperatures: (start, end) to try on planted tokens; without any it is not trained here.
        planted, needle, retrieval: its row in the tables of these names.
    """

    name: str
    load: Callable[[dict[str, Path]], Pool]
    source: str
    queries: bool = False
    estimate: Literal["straight-through", "of samples"] | None = None
    most: int = 2**20
    temperatures: tuple[tuple[float, float], ...] = ()
    planted: str = ""
    needle: str = ""
    retrieval: str = ""


def masked(operator: Callable, **options: Any) -> Callable[[dict], Pool]:
    """Of an operator with the signature of this library's."""

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float, mask: Tensor | None = None) -> Tensor:
        return operator(values, scores, k, mask=mask, temperature=temperature, **options).values

    return lambda folders: pool


def unmasked(operator: Callable, *, heated: bool = True) -> Callable[[dict], Pool]:
    """Of an operator that knows no mask, and of one that has no temperature."""

    def pool(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
        return operator(values, scores, k, temperature) if heated else operator(values, scores, k)

    return lambda folders: pool


def softmax_attention(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
    return (scores / temperature).softmax(1).transpose(1, 2) @ values


def merged(folders: dict[str, Path]) -> Pool:
    def pool(values: Tensor, scores: Tensor, k: int, temperature: float, mask: Tensor | None = None) -> Tensor:
        return BipartiteMerging(values.shape[-1], k)(values, every(values[..., 0], mask)).values

    return pool


BASELINE = "torch.topk + gather"
WAYS = [
    Way(BASELINE, unmasked(gather, heated=False), "torch", planted="hard, plain"),
    Way("tournament", masked(successive_halving_topk), OURS, planted="successive halving, softmax, annealed",
        needle="successive halving in both modes", retrieval="successive halving in both modes"),
    Way("select and merge", masked(select_and_merge_topk), OURS,
        planted="successive halving, softmax, from 4 to 1, then select and merge", needle="successive halving",
        retrieval="successive halving"),
    Way("hard top-k, gated", masked(partial(hard_topk, gradient="gate")), OURS, planted="hard, gated",
        needle="hard top-k, gated"),
    Way("hard top-k, straight-through", masked(partial(hard_topk, gradient="straight_through")), OURS,
        estimate="straight-through", planted="hard, straight-through", needle="hard top-k, straight-through"),
    Way("iterative top-k", masked(iterative_topk), OURS, planted="iterative, annealed", needle="iterative top-k",
        retrieval="iterative top-k"),
    Way("Algorithm 2, transcribed", unmasked(literal_successive_halving), "literal.py"),
    Way("the authors' operator", authors, FOLDER),
    Way("CoLT5's topk", colt5_topk, "colt5-attention", estimate="straight-through", temperatures=ANNEALED),
    Way("coordinate descent, 50 steps", coordinate_descent, "colt5-attention", temperatures=ANNEALED),
    Way("LapSum", masked(lapsum), "rivals/", temperatures=ANNEALED, needle="LapSum", retrieval="LapSum"),
    Way("LapSum, the authors'", lapsum_of_authors, FOLDER),
    Way("DFTopK", masked(dftopk), "rivals/", temperatures=ANNEALED, needle="DFTopK", retrieval="DFTopK"),
    Way("perturbed top-k, 200 samples", masked(perturbed_topk), "rivals/", estimate="of samples",
        temperatures=ANNEALED, needle="perturbed top-k", retrieval="perturbed top-k"),
    Way("SoftSort", soft_sort, "difftopk", most=2048, temperatures=ANNEALED),
    Way("bitonic network", sorting_network, "difftopk", most=512),
    Way("NoisedTopK", noised_topk, "pytopk"),
    Way("softtorch", nothing_known("softtorch"), "softtorch"),
    Way("softmax attention, k queries", unmasked(softmax_attention), "rivals/", queries=True,
        planted="softmax attention, k queries", needle="softmax attention, k queries",
        retrieval="softmax attention, k queries"),
    Way("entmax attention, k queries", entmax_attention, "entmax", queries=True, temperatures=((1.0, 1.0),)),
    Way("Ward clusters, scipy", ward("scipy.cluster.hierarchy"), "sentence-transformers",
        retrieval="Ward clusters"),
    Way("Ward clusters, fastcluster", ward("fastcluster"), "fastcluster"),
    Way("bipartite merging (ToMe)", merged, "rivals/"),
]  # fmt: skip


def loaded(folders: dict[str, Path]) -> tuple[dict[str, Pool], dict[str, str]]:
    """The ways that are here, and a line for each of the others."""
    here, absent = {}, {}
    for way in WAYS:
        try:
            here[way.name] = way.load(folders)
        except ModuleNotFoundError as error:
            absent[way.name] = f"no module {error.name} here"
        except Exception as error:  # whatever a stranger's package raises when it is imported
            absent[way.name] = one_line(error)
    return here, absent


def one_line(error: Exception) -> str:
    """An error, as a cell of a table shows it."""
    text = " ".join(str(error).split()) or "no reason given"
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return (
        shown.replace("|", "/") if isinstance(error, Absent) else f"{type(error).__name__}, {shown}".replace("|", "/")
    )
