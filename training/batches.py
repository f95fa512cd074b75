"""Which documents an update reads, and which of them each process."""

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count
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
        loader = iter(
            DataLoader(
                self.dataset,
                batch_sampler=(part or stand_in for number in count(update) for part, stand_in in self._parts(number)),
                collate_fn=self.collate,
                generator=torch.Generator(),
            )
        )
        for number in count(update):
            yield [
                MicroBatch(inputs, int((inputs["labels"] != -100).sum()) if part else 0, len(part))
                for (part, _), inputs in zip(self._parts(number), loader, strict=False)  # the loader has no end
            ]

    def _parts(self, update: int) -> list[tuple[list[int], list[int]]]:
        """For each micro-batch of an update, this process's documents, and what stands in if there are none."""
        documents = self._documents(update)
        micro_batches = min(self.accumulation, -(-len(documents) // self.processes))
        parts = micro_batches * self.processes
        return [
            (documents[len(documents) * part // parts : len(documents) * (part + 1) // parts], documents[:1])
            for part in range(self.process, parts, self.processes)
        ]

    def _documents(self, update: int) -> list[int]:
        epoch, place = divmod(update, len(self))
        return self._order(epoch)[place * self.size : (place + 1) * self.size]

    def _draw(self, epoch: int) -> list[int]:
        n = len(self.dataset)
        return random.Random(f"{self.seed} {epoch}").sample(range(n), n)
