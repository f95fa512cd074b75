"""Who teaches best, if all are pooled in the same ways afterwards? Teaching and pooling, taken apart.

python benchmarks/teachers.py [--tasks needle bbc "search: needle" "search: bbc"] [--k 8 32] [--seeds 0 1 2]

Each way to choose trains a scorer as its row of compare.py does, or of retrieval.py for a search. Then the same scores
pool by the tournament, by select and merge, and by hard top-k, at the temperature that answers most of the validation
split right; its answers on the test split count. Rows "at a constant 1" train at that temperature instead, as a softer
end may suit what pools afterwards. Writes benchmarks/results/teachers.json after every training, so that it can be
interrupted, and the tables beside it as .md.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from compare import Frozen
from frozen import Classifier, fit, predict
from ranking import from_text, to_text
from record import CommandLine, publish, resume, save
from retrieval import CACHE, found, pooled
from retrieval import fit as fit_search
from retrieval_tasks import counts, token_vectors
from retrieval_ways import WAYS, ModulePooling, Way
from rivals.gates import LapSum
from teachers_table import table
from torch import nn
from tqdm.auto import tqdm
from variants import RIVAL_ROWS, VARIANTS, Variant

from shtopk import TopKPooling
from shtopk.models import default_encoder

ITERATIVE_AT_1, LAPSUM_AT_1 = "iterative top-k, at a constant 1", "LapSum, at a constant 1"
NAMES = ("successive halving", "successive halving, annealed", "select and merge in both modes", "iterative top-k",
         ITERATIVE_AT_1, "LapSum", LAPSUM_AT_1, "DFTopK", "perturbed top-k", "hard top-k, gated",
         "hard top-k, straight-through")  # fmt: skip
TEMPERATURES = (1.0, 4.0, 1 / 4, 1 / 16)  # to choose from; of two that are level the first
POOLERS = {"successive_halving": TEMPERATURES, "select_and_merge": TEMPERATURES, "hard": (1.0,)}
SEARCH = "search: "
TASKS = ("needle", "bbc", SEARCH + "needle", SEARCH + "bbc")


class Taught(NamedTuple):
    """A scorer after its training.

    Attributes:
        scorer: token vectors [B, n, d] -> scores.
        right: pooling module and split -> for each document, or query, whether the answer is right.
    """

    scorer: nn.Module
    right: Callable[[nn.Module, str], np.ndarray]


class Topics:
    """Documents to classify, behind a frozen encoder."""

    rows = [
        *(VARIANTS + RIVAL_ROWS),
        Variant(ITERATIVE_AT_1, {"operator": "iterative"}),
        Variant(LAPSUM_AT_1, {"temperature": 1.0}, kind="lapsum", scorer_learning_rate=3e-2),
    ]

    def __init__(self, task: str):
        self.frozen = Frozen(task, torch.device("cpu"))
        self.size = self.frozen.splits["train"].hidden_states.shape[-1]

    def teach(self, row: Variant, k: int, seed: int) -> Taught:
        torch.manual_seed(seed)
        classifier = Classifier(self.size, self.frozen.classes, k, row)
        fit(classifier, self.frozen.splits["train"], seed, row.scorer_learning_rate)
        scorer = classifier.pooling.scorer

        def right(pooling: nn.Module, split: str) -> np.ndarray:
            classifier.pooling = pooling
            predictions, _ = predict(classifier, self.frozen.splits[split])
            return (predictions == self.frozen.splits[split].labels).numpy()

        return Taught(scorer, right)

    def facts(self) -> dict:
        return {}


class Search:
    """Documents to find among others by the vectors that are left of them."""

    rows = [*WAYS, Way(LAPSUM_AT_1, {"temperature": 1.0}, module=LapSum, learning_rate=3e-2)]  # iterative has 1 there

    def __init__(self, task: str):
        self.splits = token_vectors(task.removeprefix(SEARCH), default_encoder(), CACHE)
        self.size = self.splits["train"].documents.values.shape[-1]

    def teach(self, row: Way, k: int, seed: int) -> Taught:
        torch.manual_seed(seed)
        module = row.build(self.size, k)
        assert row.learning_rate is not None
        fit_search(module, self.splits["train"], row.learning_rate)

        def right(pooling: nn.Module, split: str) -> np.ndarray:
            data = self.splits[split]
            index = pooled(ModulePooling(pooling).eval(), data.documents)
            return from_text(found(index, data.queries, data.owners)["ranks"]) <= 1

        return Taught(module.pooling.scorer, right)

    def facts(self) -> dict:
        return {"queries_of_each": to_text(counts(self.splits["test"].owners))}


def evaluated(taught: Taught, operator: str, size: int, k: int) -> dict:
    """How many answers are right if an operator pools by these scores, at the best temperature on validation."""

    def pooling(temperature: float) -> nn.Module:
        return TopKPooling(size, k, eval_operator=operator, temperature=temperature, scorer=taught.scorer).eval()

    shares = {t: float(taught.right(pooling(t), "validation").mean()) for t in POOLERS[operator]}
    temperature = max(shares, key=shares.__getitem__)
    right = taught.right(pooling(temperature), "test")
    return {
        "pooled_by": operator,
        "temperature": temperature,
        "validation": shares[temperature],
        "right": "".join("01"[one] for one in right.astype(int)),
    }


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help="all by default"
    )
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    path = arguments.results / "teachers.json"
    for task in arguments.tasks:
        done = {(run["task"], run["teacher"], run["k"], run["seed"]) for run in resume(path, "cpu")["runs"]}
        kind = Search if task.startswith(SEARCH) else Topics
        rows = {row.name: row for row in kind.rows if row.name in NAMES}
        plan = [(name, k, seed) for seed in arguments.seeds for k in arguments.k for name in rows]
        plan = [one for one in plan if (task, *one) not in done]
        learner = kind(task) if plan else None
        for name, k, seed in tqdm(plan, desc=task):
            taught = learner.teach(rows[name], k, seed)
            same = {"task": task, "teacher": name, "k": k, "seed": seed}
            new = [same | evaluated(taught, operator, learner.size, k) for operator in POOLERS]
            record = resume(path, "cpu")  # again: other tasks may be running beside this one
            record.setdefault("tasks", {})[task] = learner.facts()
            record["runs"] += new
            save(record, path)
    publish(resume(path, "cpu"), path, table)


if __name__ == "__main__":
    main()
