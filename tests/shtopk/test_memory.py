"""Huge pages for large gradients: asked for, used, and nothing else changes."""

import ctypes
import mmap
import re
from pathlib import Path

import pytest
import torch

from shtopk import successive_halving_topk
from shtopk.backends import memory
from shtopk.backends.memory import in_huge_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kib(address):
    """KiB in huge pages of the mapping around this address."""
    for mapping in re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)[1:]:
        begin, end = (int(part, 16) for part in mapping.split()[0].split("-"))
        if begin <= address < end:
            return int(re.search(r"AnonHugePages:\s*(\d+) kB", mapping)[1])
    raise AssertionError(f"{address:x} lies in no mapping")


def test_a_large_tensor_lies_in_huge_pages():
    if not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        pytest.skip("needs Linux that gives huge pages only where they are asked for")
    plain = mmap.mmap(-1, 3 * memory.LARGE)
    plain.madvise(mmap.MADV_HUGEPAGE)
    plain.write(bytes(len(plain)))
    if huge_kib(ctypes.addressof(ctypes.c_char.from_buffer(plain)) + memory.LARGE) < 0.8 * len(plain) / 1024:
        pytest.skip("the system's memory is too fragmented now for huge pages")
    size = 3 * memory.LARGE // 4  # numbers of 4 bytes
    default, huge = torch.empty(size).zero_(), in_huge_pages(torch.empty(size)).zero_()
    assert huge_kib(default[size // 2 :].data_ptr()) == 0
    assert huge_kib(huge[size // 2 :].data_ptr()) > 0.8 * 3 * memory.LARGE / 1024


@pytest.mark.parametrize("k", [4, 900])  # few rows of the gradient are written, and most
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_stay_what_they_are(k, dtype, monkeypatch):
    def gradients():
        torch.manual_seed(0)
        values, scores = torch.randn(2, 1000, 700, dtype=dtype, requires_grad=True), torch.randn(2, 1000)
        scores.requires_grad_()
        successive_halving_topk(values, scores, k).values.square().sum().backward()
        return values.grad, scores.grad

    asked = []
    advise = memory._advise
    if advise is not None:
        monkeypatch.setattr(memory, "_advise", lambda *given: asked.append(given) or advise(*given))
    expected = gradients()
    assert not asked
    monkeypatch.setattr(memory, "LARGE", memory.PAGE)
    assert all(map(torch.equal, gradients(), expected))
    assert bool(asked) == (advise is not None)


def test_without_memory_of_its_own_a_tensor_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", 0)
    tensor = torch.empty(2**20, device="meta")
    assert in_huge_pages(tensor) is tensor
