"""Memory of large gradients: used again once nobody looks at it, and nothing else changes."""

import multiprocessing
import os

import pytest
import torch

from shtopk import successive_halving_topk
from shtopk.backends import memory
from shtopk.backends.memory import empty_like, release

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems get memory from torch alone")


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """1000 bytes are large."""
    monkeypatch.setattr(memory, "LARGE", 1000)
    release()


@pytest.mark.parametrize("k", [4, 900])  # few rows of the gradient are written, and most
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_stay_what_they_are(k, dtype, monkeypatch):
    torch.manual_seed(0)
    values, scores = torch.randn(2, 1000, 700, dtype=dtype, requires_grad=True), torch.randn(2, 1000)
    scores.requires_grad_()

    def gradients():
        values.grad = scores.grad = None
        successive_halving_topk(values, scores, k).values.square().sum().backward()
        return values.grad.clone(), scores.grad.clone(), values.grad.data_ptr()

    (*first, address), (*second, again) = gradients(), gradients()
    assert address == again
    monkeypatch.setattr(memory, "LARGE", 2**40)
    *expected, elsewhere = gradients()
    assert elsewhere != again
    for found in first, second:
        assert all(map(torch.equal, found, expected))


def test_memory_in_use_is_left_alone():
    like = torch.empty(30, 40, dtype=torch.bfloat16)
    tensor = empty_like(like).fill_(1)
    assert (tensor.shape, tensor.dtype) == (like.shape, like.dtype)
    address, last = tensor.data_ptr(), tensor[-1]
    del tensor
    empty_like(like).fill_(2)
    assert (last == 1).all()
    del last
    assert empty_like(like).data_ptr() == address


def test_what_does_not_fit_is_not_used():
    left = empty_like(torch.empty(1000)).data_ptr()
    assert empty_like(torch.empty(1001)).data_ptr() != left  # and this one's is kept instead
    left = empty_like(torch.empty(1000)).data_ptr()
    for size in (501, 700):
        tensor = empty_like(torch.empty(size))
        assert tensor.data_ptr() == left and tensor.untyped_storage().nbytes() == 4 * size
        del tensor
    small = empty_like(torch.empty(400))
    assert len(memory._left) == 0
    del small
    assert [len(kept) for kept in memory._left] == [4 * 400]


def test_no_more_than_one_is_kept():
    several = [empty_like(torch.empty(1000)) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in several}) == 3
    several.clear()
    assert len(memory._left) == 1
    release()
    assert len(memory._left) == 0


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_writes_into_a_copy():
    tensor = empty_like(torch.empty(1000)).fill_(1)
    process = multiprocessing.get_context("fork").Process(target=tensor.fill_, args=(2,))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and (tensor == 1).all()


def test_what_is_small_or_has_no_memory_is_made_by_torch(monkeypatch):
    monkeypatch.setattr(memory, "_take", None)
    assert empty_like(torch.empty(249)).shape == (249,)
    assert empty_like(torch.empty(2**20, device="meta")).device.type == "meta"
