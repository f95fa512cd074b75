"""The memory of a piece of work, and memory in small pieces to do it in."""

import mmap
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Tensor], *given: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of forward(), the tensors it was given not counted."""
    not_counted = {x.untyped_storage().data_ptr() for x in given}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_counted:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = forward()  # alive until counted, so that no address is used twice
    total = sum(kept.values())
    del out
    return total


class FragmentedMemory:
    """Leaves the system half of its free memory, in pieces smaller than a huge page, while it lasts (Linux alone).

    Another process fills all but a little of it with pages of 4 KiB, lets go of every second one, and takes what is
    still in one piece.
    """

    def __enter__(self) -> "FragmentedMemory":
        spawn = multiprocessing.get_context("spawn")
        self.orders, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_fragment, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.take()
        return self

    def take(self) -> None:
        """Take what has come together since."""
        self.orders.send(None)
        self.orders.recv()

    def __exit__(self, *exception: Any) -> None:
        self.process.kill()
        self.process.join()


PAGE, HUGE_PAGE, SPARED = 2**12, 2**21, 2**29


def _fragment(orders: Connection) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this process is ended
    filled = []
    while (size := _free_bytes() - SPARED) > SPARED // 8:
        filled.append(_private(min(size, 2**30), mmap.MADV_NOHUGEPAGE, PAGE))
    for memory in filled:
        for page in range(0, len(memory), 2 * PAGE):
            memory.madvise(mmap.MADV_DONTNEED, page, PAGE)
    while True:
        orders.recv()
        if pieces := _huge_pieces():
            filled.append(_private(pieces * HUGE_PAGE, mmap.MADV_HUGEPAGE, HUGE_PAGE))
        orders.send(None)


def _private(size: int, advice: int, page: int) -> mmap.mmap:
    """Memory whose pages are all there."""
    memory = mmap.mmap(-1, size // page * page, access=mmap.ACCESS_COPY)
    memory.madvise(advice)
    for place in range(0, len(memory), page):
        memory[place] = 1
    return memory


def _free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 2**10 * next(int(line.split()[1]) for line in lines if line.startswith("MemFree"))


def _huge_pieces() -> int:
    """How many huge pages could be had at once: of each zone, the free pieces of 1, 2, 4 ... pages are counted."""
    zones = [line.split()[4:] for line in Path("/proc/buddyinfo").read_text().splitlines()]
    return sum(int(count) << order - 9 for zone in zones for order, count in enumerate(zone) if order >= 9)
