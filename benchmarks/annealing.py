"""From soft to sharp: the weights of sixteen tokens while a scorer learns which four of them matter.

python benchmarks/annealing.py [--results folder]

The task of planted.py with n = 16 and k = 4: marked tokens carry the target, and a scorer and a head learn from its
loss alone, in seconds on a CPU. One held-out sequence, the same throughout, is pooled before every fourth update at
the temperature of that update. Writes its weights to benchmarks/results/annealing.json, which pictures.py draws.
"""

import torch
from planted import PAYLOAD, Size, sequences
from record import CommandLine, resume, save
from torch import nn

from shtopk import TopKPooling, anneal

SIZE = Size(n=16, k=4, depth=32, updates=201, seeds=(0,))
HELD_OUT, EVERY = 1000, 4  # the seed of the sequence that is looked at, and how often it is


def main() -> None:
    arguments = CommandLine(__doc__, device=False).parse_args()
    path = arguments.results / "annealing.json"
    record = resume(path, "cpu", anew=True, n=SIZE.n, k=SIZE.k, updates=SIZE.updates, seed=SIZE.seeds[0])
    save(record | train(SIZE), path)


def train(size: Size) -> dict:
    """The marked tokens of the held-out sequence, and every few updates the temperature and the tokens' weights."""
    torch.manual_seed(size.seeds[0])
    generator = torch.Generator().manual_seed(size.seeds[0])
    pooling = TopKPooling(size.depth, size.k, temperature=1 / 16, initial_temperature=4.0).train()
    head = nn.Linear(size.depth, PAYLOAD)
    optimizer = torch.optim.Adam(
        [{"params": pooling.parameters(), "lr": 0.01}, {"params": head.parameters()}], lr=0.03
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / size.updates)
    held_out, marked, _ = sequences(size, torch.Generator().manual_seed(HELD_OUT))
    runs = []
    for update in range(size.updates):
        temperature = anneal(pooling, update / (size.updates - 1))
        if update % EVERY == 0:
            with torch.no_grad():
                weights = pooling(held_out[:1]).weights[0].tolist()
            runs.append({"update": update, "temperature": temperature, "weights": [round(w, 4) for w in weights]})
        values, _, target = sequences(size, generator)
        loss = nn.functional.mse_loss(head(pooling(values).values.mean(1)), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pooling.parameters(), 1.0)
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return {"marked": sorted(marked[0].tolist()), "runs": runs}


if __name__ == "__main__":
    main()
