"""Which documents an update reads: the same on any number of processes, each once, and the n-th without the others."""

from itertools import islice

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from shtopk.training.batches import UpdateBatches


def collate(rows):
    return {"labels": torch.tensor([row["labels"] for row in rows])}


def updates(n, **options):
    return UpdateBatches(Dataset.from_dict({"labels": range(n)}), collate, **options)


def read(n, count, start=0, **options):
    """For each of `count` updates from `start` on: what each micro-batch of each process reads, by process."""
    processes = range(options.get("processes", 1))
    of_each = [updates(n, process=process, **options).starting_at(start) for process in processes]
    return list(islice(zip(*of_each, strict=True), count))


def documents(update):
    """Of all processes, without the stand-ins."""
    return sorted(i for parts in update for part in parts if part.items for i in part.inputs["labels"].tolist())


@settings(deadline=None)  # a loaded machine takes its time
@given(n=st.integers(1, 40), batch_size=st.integers(1, 5), accumulation=st.integers(1, 3), processes=st.integers(1, 3))
def test_every_epoch_has_every_document_once_however_it_is_divided(n, batch_size, accumulation, processes):
    options = {"batch_size": batch_size, "accumulation": accumulation, "processes": processes}
    size = batch_size * accumulation * processes
    per_epoch = len(updates(n, **options))
    assert per_epoch == -(-n // size)
    epoch = read(n, per_epoch, **options)
    assert sorted(i for update in epoch for i in documents(update)) == list(range(n))
    undivided = read(n, per_epoch, batch_size=size)
    assert [documents(update) for update in epoch] == [documents(update) for update in undivided]
    for update in epoch:
        parts = [part for parts in update for part in parts]
        assert processes <= len(parts) <= accumulation * processes
        assert all(part.items == part.documents <= batch_size for part in parts)
        assert max(part.documents for part in parts) - min(part.documents for part in parts) <= 1
        assert all(len(part.inputs["labels"]) >= 1 for part in parts)  # a stand-in reads something as well


def test_the_nth_update_does_not_need_those_before():
    options = {"batch_size": 4, "accumulation": 2, "seed": 3}
    through = read(30, 12, **options)
    for start in (1, 4, 9):  # 4 updates an epoch
        later = read(30, 12 - start, start=start, **options)
        assert [documents(update) for update in later] == [documents(update) for update in through[start:]]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [[documents(update) for update in read(40, 5, start=start, batch_size=8, seed=seed)]
              for seed in (0, 1) for start in (0, 5)]  # fmt: skip
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_an_order_draws_nothing_from_the_common_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    read(20, 6, batch_size=4)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("n", [1, 2])
def test_a_process_without_documents_reads_a_stand_in(n):
    ((first, second, third),) = read(n, 1, batch_size=4, processes=3)
    assert [part.documents for (part,) in (first, second, third)].count(0) == 3 - n
    assert all(len(part.inputs["labels"]) == 1 for (part,) in (first, second, third))


def test_items_of_a_summary_are_its_tokens():
    rows = Dataset.from_dict({"labels": [[5, 6, -100], [7, -100, -100]]})
    (part,) = next(UpdateBatches(rows, collate, batch_size=2).starting_at(0))
    assert (part.items, part.documents) == (3, 2)


def test_documents_of_like_length_share_an_update_and_are_read_once():
    n, lengths = 403, [number * 7 % 100 for number in range(403)]
    options = {"batch_size": 2, "accumulation": 2, "lengths": lengths, "seed": 1}
    epoch = [documents(update) for update in read(n, 101, **options)]
    assert sorted(i for update in epoch for i in update) == list(range(n))
    assert [len(update) for update in epoch] == [4] * 100 + [3]
    spread = [max(lengths[i] for i in update) - min(lengths[i] for i in update) for update in epoch[:100]]
    assert sum(spread) / 100 < 5
    longest = [max(lengths[i] for i in update) for update in epoch[:100]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    assert [documents(update) for update in read(n, 30, start=71, **options)] == epoch[71:]


def test_workers_make_the_same_batches():
    options = {"batch_size": 3, "accumulation": 2}
    of_workers, alone = (updates(20, workers=workers, **options).starting_at(2) for workers in (1, 0))
    for its, others in islice(zip(of_workers, alone, strict=True), 4):
        assert all(one.inputs["labels"].equal(other.inputs["labels"]) for one, other in zip(its, others, strict=True))
