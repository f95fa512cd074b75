"""Does the gradient teach? A scorer has to find planted tokens from the loss of the task alone.

python benchmarks/planted.py [--size large] [--device cuda] [--results folder]

Sequences of n = 256 random tokens, k = 8 of them with a noisy mark. The target is the mean payload of the marked
ones; every other token has a payload too. A linear scorer and a linear head learn together, on new sequences at
every update. A loss of 1 means that nothing was learned, 0 is perfect. Start and end of the temperature, and the
learning rate, are tuned for each method on one seed; five others give the figures. --size large: n = 4,096, k = 16,
with the settings of the small one, two seeds. Writes planted-<size>.json after every training, then .md.
"""

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from record import CommandLine, publish, resume, save
from rivals.gates import dftopk, lapsum
from rivals.perturbed import perturbed_topk
from torch import Tensor, nn
from tqdm.auto import tqdm

from shtopk import hard_topk, iterative_topk, select_and_merge_topk, successive_halving_topk

PAYLOAD, MARK = 4, 5.0  # MARK: shift of a marked token, in standard deviations of the noise
BATCH, TEST = 32, 512
TUNING_SEED, LEARNING_RATES = 100, (0.01, 0.03)


@dataclass(frozen=True)
class Size:
    n: int
    k: int
    depth: int  # of a token vector
    updates: int
    seeds: tuple[int, ...]


SIZES = {"small": Size(256, 8, 128, 200, (0, 1, 2, 3, 4)), "large": Size(4096, 16, 32, 400, (0, 1))}


@dataclass(frozen=True)
class Method:
    """A way to pool.

    Attributes:
        pool: (values [B, n, d], scores [B, n], k, temperature) -> [B, d].
        temperatures: (start, end) to try, the same twice where it is fixed.
        queries: k scorers instead of one, with a softmax each.
        oracle: the scores are the marks themselves.
        merges: after training the values are pooled by select and merge, at the temperature of the end.
    """

    name: str
    pool: Callable[[Tensor, Tensor, int, float], Tensor]
    temperatures: list[tuple[float, float]]
    queries: bool = False
    oracle: bool = False
    merges: bool = False


def mean_of(operator: Callable, values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
    return operator(values, scores, k, temperature=temperature).values.mean(1)


def power(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
    """The authors' boost wants scores in (0, 1)."""
    return mean_of(partial(successive_halving_topk, boost="power"), values, scores.sigmoid(), k, temperature)


def subset_sampler(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
    """Relaxed subset sampling (Xie and Ermon 2019, Algorithm 2): k softmaxes of Gumbel-perturbed scores."""
    uniform = torch.rand_like(scores).clamp(1e-9, 1 - 1e-7)
    logits = scores - (-uniform.log()).log()
    chosen = torch.zeros_like(scores)
    share = torch.zeros_like(scores)
    for _ in range(k):
        logits = logits + (1 - share).clamp(min=torch.finfo(scores.dtype).tiny).log()
        share = (logits / temperature).softmax(-1)
        chosen = chosen + share
    return (chosen.unsqueeze(1) @ values).squeeze(1) / k


def attention(values: Tensor, scores: Tensor, k: int, temperature: float) -> Tensor:
    """scores [B, n, k], one column for each query."""
    return (scores / temperature).softmax(1).mean(-1).unsqueeze(1).matmul(values).squeeze(1)


def fixed(*temperatures: float) -> list[tuple[float, float]]:
    return [(t, t) for t in temperatures]


ANNEALED = [(1.0, 0.0625), (4.0, 0.0625), (16.0, 0.0625), (64.0, 0.0625)]
relative_boost = partial(successive_halving_topk, boost="relative")
softmax_boost = partial(successive_halving_topk, boost="softmax")
METHODS = [
    Method("successive halving, relative, annealed", partial(mean_of, relative_boost), ANNEALED),
    Method("successive halving, relative, from 64", partial(mean_of, relative_boost), [(64.0, 0.0625)]),
    Method("successive halving, relative, fixed", partial(mean_of, relative_boost),
           fixed(0.0625, 0.25, 1, 4)),
    Method("successive halving, softmax, annealed", partial(mean_of, softmax_boost), ANNEALED),
    Method("successive halving, softmax, from 4", partial(mean_of, softmax_boost), [(4.0, 0.0625)]),
    Method("successive halving, softmax, fixed", partial(mean_of, softmax_boost), fixed(0.0625, 0.25, 1, 4)),
    Method("successive halving, softmax, at 1, then select and merge", partial(mean_of, softmax_boost), fixed(1),
           merges=True),
    Method("successive halving, softmax, from 4 to 1, then select and merge", partial(mean_of, softmax_boost),
           [(4.0, 1.0)], merges=True),
    Method("successive halving, power, annealed", power, [(4.0, 1.0), (16.0, 1.0), (16.0, 0.25), (64.0, 1.0)]),
    Method("successive halving, power, fixed", power, fixed(0.25, 1, 4, 16)),
    Method("iterative, annealed", partial(mean_of, iterative_topk), [(1, 0.01), (10, 0.01), (10, 0.1), (100, 0.1)]),
    Method("iterative, fixed", partial(mean_of, iterative_topk), fixed(0.01, 0.1, 1, 10)),
    Method("hard, plain", partial(mean_of, hard_topk), fixed(1)),
    Method("hard, gated", partial(mean_of, partial(hard_topk, gradient="gate")), fixed(0.25, 0.5, 1, 2)),
    Method("hard, straight-through", partial(mean_of, partial(hard_topk, gradient="straight_through")),
           fixed(0.25, 0.5, 1, 2)),
    Method("DFTopK, annealed", partial(mean_of, dftopk), ANNEALED),
    Method("DFTopK, fixed", partial(mean_of, dftopk), fixed(0.0625, 0.25, 1, 4)),
    Method("LapSum, annealed", partial(mean_of, lapsum), ANNEALED),
    Method("LapSum, fixed", partial(mean_of, lapsum), fixed(0.0625, 0.25, 1, 4)),
    Method("perturbed top-k, annealed", partial(mean_of, perturbed_topk), ANNEALED),
    Method("perturbed top-k, fixed", partial(mean_of, perturbed_topk), fixed(0.0625, 0.25, 1, 4)),
    Method("subset sampler", subset_sampler, [*fixed(0.1, 0.5, 1), (4, 0.1)]),
    Method("softmax attention, k queries", attention, fixed(1), queries=True),
    Method("oracle", partial(mean_of, hard_topk), fixed(1), oracle=True),
]  # fmt: skip


def sequences(size: Size, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Values [BATCH, n, depth], marked [BATCH, k] and targets [BATCH, PAYLOAD] of variance 1."""
    values = torch.randn(BATCH, size.n, size.depth, generator=generator, device=generator.device)
    marked = torch.rand(BATCH, size.n, generator=generator, device=generator.device).topk(size.k).indices
    payload = values[..., :PAYLOAD].gather(1, marked.unsqueeze(-1).expand(-1, -1, PAYLOAD))
    values[..., PAYLOAD] += MARK * torch.zeros_like(values[..., 0]).scatter(1, marked, 1)
    return values, marked, payload.mean(1) * math.sqrt(size.k)


def train(method: Method, start: float, end: float, rate: float, size: Size, seed: int, device: str) -> dict:
    """Train; then, on new sequences, recall of the marked tokens, and the loss as trained and with a hard choice."""
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    k = size.k
    scorer = nn.Linear(size.depth, k if method.queries else 1).to(device)
    head = nn.Linear(size.depth, PAYLOAD).to(device)
    nn.init.normal_(scorer.weight, std=size.depth**-0.5)
    optimizer = torch.optim.Adam([{"params": scorer.parameters(), "lr": rate}, {"params": head.parameters()}], lr=0.03)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / size.updates)

    def scores_of(values: Tensor, marked: Tensor) -> Tensor:
        if method.oracle:
            return torch.zeros_like(values[..., 0]).scatter(1, marked, 1)
        return scorer(values) if method.queries else scorer(values).squeeze(-1)

    for update in range(size.updates):
        values, marked, target = sequences(size, generator)
        progress = update / (size.updates - 1)
        pooled = method.pool(values, scores_of(values, marked), k, start ** (1 - progress) * end**progress)
        loss = nn.functional.mse_loss(head(pooled), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    in_eval = partial(mean_of, select_and_merge_topk) if method.merges else method.pool
    soft, hard, recall = [], [], []
    with torch.inference_mode():
        for _ in range(TEST // BATCH):
            values, marked, target = sequences(size, generator)
            scores = scores_of(values, marked)
            kept = scores.argmax(1) if method.queries else scores.topk(k, -1).indices
            chosen = values.gather(1, kept.unsqueeze(-1).expand(-1, -1, size.depth)).mean(1)
            soft.append(nn.functional.mse_loss(head(in_eval(values, scores, k, end)), target))
            hard.append(nn.functional.mse_loss(head(chosen), target))
            recall.append((marked.unsqueeze(-1) == kept.unsqueeze(-2)).any(-1).float().mean())
    means = [torch.stack(numbers).mean().item() for numbers in (recall, soft, hard)]
    return dict(zip(("recall", "loss", "loss_hard"), means, strict=True))


def table(record: dict) -> str:
    """Markdown: a row for each method, mean ± standard deviation over the seeds."""
    lines = ["| pooling | temperature | learning rate | recall | loss, as trained | loss, hard choice |",
             "|---|---|--:|--:|--:|--:|"]  # fmt: skip
    for method in METHODS:
        runs = [run for run in record["runs"] if run["method"] == method.name]
        if not runs:
            continue
        start, end = runs[0]["start"], runs[0]["end"]
        cells = []
        for key in ("recall", "loss", "loss_hard"):
            numbers = [run[key] for run in runs]
            cells.append(f"{statistics.mean(numbers):.2f} ± {statistics.stdev(numbers):.2f}")
        temperature = f"{end:g}" if start == end else f"{start:g} to {end:g}"
        lines.append(f"| {method.name} | {temperature} | {runs[0]['learning_rate']:g} | {' | '.join(cells)} |")
    size = SIZES[record["size"]]
    return "\n".join(lines) + (
        f"\n\nn = {size.n}, k = {size.k}, {size.updates} updates of {BATCH} sequences, mean ± standard deviation over "
        f"seeds {', '.join(map(str, size.seeds))}. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def run_all(path: Path, plan: list[tuple], size: str, device: str) -> dict:
    """Train what the file lacks of the plan."""
    record = resume(path, device, size=size)
    for method, (start, end), rate, seed in tqdm(plan, desc=path.stem):
        setting = {"method": method.name, "start": start, "end": end, "learning_rate": rate, "seed": seed}
        if not any(setting.items() <= run.items() for run in record["runs"]):
            record["runs"].append(setting | train(method, start, end, rate, SIZES[size], seed, device))
            save(record, path)
    return record


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    arguments = parser.parse_args()

    plan = [(method, *setting) for method in METHODS
            for setting in itertools.product(method.temperatures, LEARNING_RATES, [TUNING_SEED])]  # fmt: skip
    tried = run_all(arguments.results / "planted-tuning.json", plan, "small", arguments.device)["runs"]
    best = {}
    for run in sorted(tried, key=lambda run: (-run["loss_hard"], run["learning_rate"])):  # of equals, the faster
        best[run["method"]] = (run["start"], run["end"]), run["learning_rate"]

    path = arguments.results / f"planted-{arguments.size}.json"
    plan = [(method, *best[method.name], seed) for seed in SIZES[arguments.size].seeds for method in METHODS]
    record = run_all(path, plan, arguments.size, arguments.device)
    publish(record, path, table)


if __name__ == "__main__":
    main()
