"""Which documents an update reads, and which of them each process."""

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch.utils.data import DataLoader


class MicroBatch(NamedTuple):
    """What a process reads at once.

    Attributes:
        inputs: of the model, labels among them.
        items: what its loss is the mean of: documents with a class, or tokens of summaries. 0 for a stand-in, which
            keeps a process in step that an update has no document for.
        documents: how many there are; 0 for a stand-in.
    """

    inputs: Any
    items: int
    documents: int


class Updates:
    """The documents of every update, drawn anew for each epoch by seed and epoch alone.

    An update has batch_size * accumulation * processes of them, the last of an epoch those that are left. However it
    is divided among processes and micro-batches, an update has the same documents, each once; and the n-th has them
    without looking at those before, so that a run can go on where it stopped.

    Args:
        dataset: the encoded training split.
        collate: rows -> inputs of the model.
        batch_size: documents per process and micro-batch.
        accumulation: micro-batches of an update.
        processes, process: how many there are, and which of them this is.
        seed: of the order.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable,
        *,
        batch_size: int,
        accumulation: int = 1,
        processes: int = 1,
        process: int = 0,
        seed: int = 0,
    ):
        self.dataset, self.collate, self.seed = dataset, collate, seed
        self.accumulation, self.processes, self.process = accumulation, processes, process
        self.size = batch_size * accumulation * processes
        self._order = lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        """Updates of an epoch."""
        return -(-len(self.dataset) // self.size)

    def starting_at(self, update: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of this process for each update from the given one on (0 is the first), without end."""
        # A generator of its own: drawing from the common one would shift what dropout draws after a resumption.
        loader = DataLoader(
            self.dataset,
            batch_sampler=(part or whole[:1] for whole, part in self._parts(update)),
            collate_fn=self.collate,
            generator=torch.Generator(),
        )
        both = zip(self._parts(update), loader, strict=True)
        while True:
            yield [
                MicroBatch(inputs, _items(inputs["labels"]) if part else 0, len(part))
                for (_, part), inputs in islice(both, self.accumulation)
            ]

    def _parts(self, update: int) -> Iterator[tuple[list[int], list[int]]]:
        """The documents of an update and this process's part of them, for each micro-batch."""
        parts = self.accumulation * self.processes
        for number in count(update):
            whole = self._documents(number)
            ends = [len(whole) * part // parts for part in range(parts + 1)]
            for part in range(self.process, parts, self.processes):
                yield whole, whole[ends[part] : ends[part + 1]]

    def _documents(self, update: int) -> list[int]:
        epoch, place = divmod(update, len(self))
        return self._order(epoch)[place * self.size : (place + 1) * self.size]

    def _draw(self, epoch: int) -> list[int]:
        n = len(self.dataset)
        return random.Random(f"{self.seed} {epoch}").sample(range(n), n)


def _items(labels: torch.Tensor) -> int:
    return int((labels != -100).sum())
