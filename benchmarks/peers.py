"""What people would take instead of this library, side by side: time, memory, what each can do, and whether it learns.

pip install -e '.[bench,peers]'
python benchmarks/peers.py [--authors FOLDER] [--lapsum FOLDER] [--parts checks memory quality time] [--results folder]

A peer that is not here is named in the table, with the reason; none of them is needed. --authors is a clone of
github.com/applicaai/successive-halving-topk, --lapsum the folder lapsum/ of a clone of github.com/gmum/LapSum, built
there by its setup.py; their code runs. The parts:

checks   does padding change the result? does k = 7 of n = 100 work? is the gradient to the scores that of finite
         differences? do two runs give the same?
memory   the peak of a forward and backward pass
quality  the small task of planted.py, for those that planted.py does not train; what needle and retrieval say
         stands in results/ already
time     forward, and forward and backward, as ratios to torch.topk and a gather in the same turn, on a quiet machine

Writes results/peers.json after every way, so that it can be interrupted, and the tables as .md; what stands there is
not measured again.
"""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import planted
import torch
from peers_checks import check, inputs
from peers_table import table
from peers_ways import BASELINE, WAYS, Pool, Way, loaded
from record import CommandLine, publish, resume, save
from speed import keep_freed_memory
from tqdm.auto import tqdm

from shtopk.training.memory import PeakMemory

PARTS = ("checks", "memory", "quality", "time")
BATCH, DEPTH, THREADS = 8, 256, 2
SHAPES = [(512, 32), (2048, 32), (4096, 128)]  # n, k
FOR_MEMORY = 1  # which of them
TEMPERATURE = 1.0
TURNS, FEW_TURNS, SLOW, CALLS = 11, 2, 1.0, 0.02  # of ways that take as many seconds; seconds of calls in a turn
SEEDS = (0, 1, 2)
LEARNING_RATES = planted.LEARNING_RATES


class Work:
    """A way with its inputs at one size."""

    def __init__(self, way: Way, pool: Pool, n: int, k: int):
        self.pool, self.k = pool, k
        self.values, self.scores = (tensor.requires_grad_() for tensor in inputs(way, n, k, BATCH, DEPTH))

    def forward(self) -> None:
        with torch.no_grad():
            self.pool(self.values, self.scores, self.k, TEMPERATURE)

    def step(self) -> None:
        """Forward and backward."""
        self.values.grad = self.scores.grad = None
        self.pool(self.values, self.scores, self.k, TEMPERATURE).sum().backward()


def peak(way: Way, pool: Pool, n: int, k: int) -> float:
    """MiB of a step, the gradient of the values included."""
    work = Work(way, pool, n, k)
    work.step()  # warm-up
    work.values.grad = work.scores.grad = None
    memory = PeakMemory(torch.device("cpu"))
    work.step()
    return memory.read()


def times(ways: list[Way], here: dict[str, Pool], n: int, k: int) -> Iterator[dict]:
    """A run for each way: medians over turns of its seconds, and of their ratio to the baseline's in the same turn."""
    works = {way.name: Work(way, here[way.name], n, k) for way in ways}
    for key, name in (("forward", "forward"), ("step", "forward and backward")):
        calls = {way: getattr(work, key) for way, work in works.items()}
        first = {way: seconds_of(call, 1) for way, call in calls.items()}  # warm-up
        first = {way: seconds_of(call, 1) if first[way] < SLOW else first[way] for way, call in calls.items()}
        taken: dict[str, list[float]] = {way: [] for way in calls}
        ratios: dict[str, list[float]] = {way: [] for way in calls}
        for turn in tqdm(range(TURNS), desc=f"n = {n}, {name}", leave=False):
            for way, call in calls.items():
                if turn < FEW_TURNS or first[way] < SLOW:
                    taken[way].append(seconds_of(call, max(1, int(CALLS / first[way]))))
                    ratios[way].append(taken[way][-1] / taken[BASELINE][-1])
        for way in calls:
            median = {"seconds": statistics.median(taken[way]), "ratio": statistics.median(ratios[way])}
            yield {"part": "time", "way": way, "n": n, "k": k, "what": name, **median, "turns": len(taken[way])}


def seconds_of(call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def method(way: Way, pool: Pool) -> planted.Method:
    """The way as planted.py trains one: the mean of its k vectors."""

    def mean(values, scores, k, temperature):
        return pool(values, scores, k, temperature).mean(1)

    return planted.Method(way.name, mean, list(way.temperatures), queries=way.queries)


def learn(way: Way, pool: Pool, size: planted.Size) -> list[dict]:
    """Train with every setting on a seed of its own, and with the best one on the others."""
    train = partial(planted.train, method(way, pool), size=size, device="cpu")
    tried = []
    for (start, end), rate in product(way.temperatures, LEARNING_RATES):
        tried.append((train(start, end, rate, seed=planted.TUNING_SEED)["loss_hard"], start, end, rate))
    _, start, end, rate = min(tried)
    setting = {"part": "quality", "way": way.name, "start": start, "end": end, "learning_rate": rate}
    return [setting | {"seed": seed} | train(start, end, rate, seed=seed) for seed in SEEDS]


def version_of(way: Way) -> str:
    """ "" for what is no package."""
    try:
        return version(way.source)
    except (PackageNotFoundError, ValueError):
        return ""


def measure(record: dict, path: Path, here: dict[str, Pool], parts: list[str], size: planted.Size) -> None:
    """What the record lacks of these parts, saved after every way."""

    def done(part: str, **where: object) -> bool:
        return any(run["part"] == part and where.items() <= run.items() for run in record["runs"])

    def add(runs: list[dict]) -> None:
        record["runs"] += runs
        save(record, path)

    ways = [way for way in WAYS if way.name in here]
    torch.set_num_threads(1)  # the checks are of small tensors
    for way in tqdm(ways, desc="checks"):
        if not done("checks", way=way.name):  # always: they say what gives no vectors
            add([{"part": "checks", "way": way.name, "version": version_of(way)} | check(way, here[way.name])])
    torch.set_num_threads(THREADS)
    failed = {run["way"] for run in record["runs"] if "error" in run}
    ways = [way for way in ways if way.name not in failed]
    n, k = SHAPES[FOR_MEMORY]
    for way in tqdm(ways if "memory" in parts else [], desc="memory"):
        if n <= way.most and not done("memory", way=way.name):
            run = {"part": "memory", "way": way.name, "n": n, "k": k}
            add([run | {"peak_mib": peak(way, here[way.name], n, k)}])
    for way in tqdm(ways if "quality" in parts else [], desc="quality"):
        if way.temperatures and not done("quality", way=way.name):
            add(learn(way, here[way.name], size))
    if "time" in parts:
        keep_freed_memory()
        for n, k in SHAPES:
            if not done("time", n=n):
                add([*times([way for way in ways if n <= way.most], here, n, k)])


def main() -> None:
    parser = CommandLine(__doc__, device=False)
    parser.add_argument("--authors", type=Path, metavar="FOLDER", help="the authors' code")
    parser.add_argument("--lapsum", type=Path, metavar="FOLDER", help="the code of LapSum's authors, built")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; all by default")
    arguments = parser.parse_args()
    folders = {"authors": arguments.authors, "lapsum": arguments.lapsum}
    for option, folder in folders.items():
        if folder is not None and not folder.is_dir():
            parser.error(f"expected --{option} to be a folder, got {folder}")
    torch.set_num_threads(THREADS)
    path = arguments.results / "peers.json"
    record = resume(path, "cpu", sizes={"batch": BATCH, "depth": DEPTH, "shapes": [list(shape) for shape in SHAPES]})
    here, absent = loaded({option: folder.resolve() for option, folder in folders.items() if folder is not None})
    measured = {run["way"] for run in record["runs"]}
    record["absent"] = {way: reason for way, reason in absent.items() if way not in measured}
    save(record, path)
    measure(record, path, here, list(arguments.parts), planted.SIZES["small"])
    publish(record, path, table)


if __name__ == "__main__":
    main()
