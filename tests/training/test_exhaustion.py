"""Memory that ran out is told in one line that names what helps, on a CPU and on a GPU."""

import pytest
import torch
from refusals import assert_refused

import train
from shtopk.training import loop
from shtopk.training.exhaustion import is_out_of_memory, out_of_memory

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB")


def on_the_cpu():
    torch.empty(2**60)


@pytest.mark.parametrize(("fail", "said"), [
    (on_the_cpu, "the CPU ran out of memory as it asked for "),
    (lambda: (_ for _ in ()).throw(GPU), "the GPU ran out of memory as it asked for 2.5 GiB more"),
    (lambda: bytearray(2**62), "the CPU ran out of memory"),
], ids=["cpu", "gpu", "python"])  # fmt: skip
def test_a_training_says_what_helps(words, last_line, monkeypatch, fail, said):
    monkeypatch.setattr(loop, "train_step", lambda *_: fail())
    line = last_line(train.main, words, code=1)
    assert said in line
    assert_refused(line, "batch_size", "--gradient_checkpointing", "--windows_at_once", "bf16")


def test_other_errors_stay_as_they_are(words, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train.main(words)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert out_of_memory(MemoryError()) == "the CPU ran out of memory"
