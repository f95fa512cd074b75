"""The documents that each update reads, and which of them a process reads."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

SORTED_UPDATES = 50  # documents of so many updates are sorted by length together


class MicroBatch(NamedTuple):
    """The inputs that a process gives to the model at once.

    A dummy has 0 documents. It keeps the processes in step where one has no documents left: all must call the model.
    """

    inputs: Any  # of the model, labels among them
    items: int  # number of loss terms, of documents or of target tokens
    documents: int


def items_of(labels: torch.Tensor) -> int:
    """How many terms the mean has that is the loss of these labels: documents with a class, each label of each
    document, numbers, or target tokens.
    """
    return labels.numel() if labels.is_floating_point() else int((labels != -100).sum())


class UpdateBatches:
    """The micro-batches of every update.

    An update reads batch_size * accumulation * processes documents; the last one of an epoch reads those that are
    left. Each of its documents is read once, however they are divided among processes and micro-batches. The order of
    the documents depends on the seed and the epoch alone. So the batches of any update can be read without those
    before it, and a run can go on from there.

    Args:
        collate: rows -> inputs of the model.
        batch_size: documents per process and micro-batch.
        accumulation: micro-batches of an update.
        processes: how many there are.
        process: the rank of this one.
        seed: of the order of the documents.
        lengths: of every document. Documents of like length then share an update, and the order is another one. None:
            any documents do.
        workers: processes that make batches ahead; 0: this one does when it needs them.
        pinned: put batches where a GPU can fetch them itself.
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
        lengths: Sequence[int] | None = None,
        workers: int = 0,
        pinned: bool = False,
    ):
        self.dataset, self.collate, self.seed, self.lengths = dataset, collate, seed, lengths
        self.workers, self.pinned = workers, pinned
        self.accumulation, self.processes, self.process = accumulation, processes, process
        self.size = batch_size * accumulation * processes
        self._order = lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        """The number of updates in an epoch."""
        return -(-len(self.dataset) // self.size)

    def starting_at(self, update: int) -> Iterator[list[MicroBatch]]:
        """Yield this process's micro-batches for each update, from the given one on (0 is the first), without end."""
        # Its own generator: draws from the global one would change the dropout after a resumption.
        loader = iter(
            DataLoader(
                self.dataset,
                batch_sampler=(part or dummy for number in count(update) for part, dummy in self._parts(number)),
                collate_fn=self.collate,
                generator=torch.Generator(),
                num_workers=self.workers,
                pin_memory=self.pinned,
                worker_init_fn=_leave_signals,
            )
        )
        for number in count(update):
            yield [
                MicroBatch(inputs, items_of(inputs["labels"]) if part else 0, len(part))
                for (part, _), inputs in zip(self._parts(number), loader, strict=False)  # the loader is endless
            ]

    def _parts(self, update: int) -> list[tuple[list[int], list[int]]]:
        """This process's documents for each micro-batch of an update, and a dummy where there are none."""
        epoch, place = divmod(update, len(self))
        documents = self._order(epoch)[place * self.size : (place + 1) * self.size]
        micro_batches = min(self.accumulation, -(-len(documents) // self.processes))
        parts = micro_batches * self.processes
        return [
            (documents[len(documents) * part // parts : len(documents) * (part + 1) // parts], documents[:1])
            for part in range(self.process, parts, self.processes)
        ]

    def _draw(self, epoch: int) -> list[int]:
        n, generator = len(self.dataset), random.Random(f"{self.seed} {epoch}")
        order = generator.sample(range(n), n)
        return order if self.lengths is None else self._by_length(order, self.lengths, generator)

    def _by_length(self, order: list[int], lengths: Sequence[int], generator: random.Random) -> list[int]:
        """The order with documents of like length in one update, and these updates in an order of their own.

        Sorting a few updates' documents at a time leaves most of the randomness. The last update, which may have
        fewer documents, stays the last.
        """
        several = self.size * SORTED_UPDATES
        order = [
            document
            for start in range(0, len(order), several)
            for document in sorted(order[start : start + several], key=lengths.__getitem__)
        ]
        whole = [order[start : start + self.size] for start in range(0, len(order) - self.size + 1, self.size)]
        rest = order[len(whole) * self.size :]
        generator.shuffle(whole)
        return [document for update in [*whole, rest] for document in update]


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the training ends its workers itself, after the update."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
