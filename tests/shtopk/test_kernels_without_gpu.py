"""The kernels where there is no GPU: in Triton's interpreter, and through its compiler."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shtopk.backends.face import Gradients, Wanted
from shtopk.rule import Rule

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
SHARED = {80: 166_912, 90: 232_448}  # bytes that a program can have on an A100, an H100


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_kernels.py runs on the GPU here")
def test_kernels_are_right_in_the_interpreter():
    path = Path(__file__).with_name("test_kernels.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", path],
        capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=path.parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 30
    assert "skipped" not in run.stdout


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", SHARED)
def test_kernels_compile_within_limits(capability, monkeypatch, tmp_path):
    from kernel_compiler import Compiler

    from shtopk.backends.gpu import given_slots, launch
    from shtopk.backends.gpu.start import Start

    compiler = Compiler(capability, tmp_path)
    monkeypatch.setattr(Start, "__call__", lambda *given: compiler.compile(*given))
    wanted = Wanted(True, True, True)
    for n, k, dtype, boost in (
        (1024, 8, torch.bfloat16, "relative"),
        (4096, 512, torch.float32, "softmax"),
        (16384, 128, torch.bfloat16, "relative"),
        (16384, 2048, torch.float32, "power"),
        (100, 7, torch.float16, "softmax"),
    ):
        values, scores = (torch.empty(2, n, *d, dtype=dtype, device="meta") for d in ((256,), ()))
        mask, rule = torch.empty(2, n, dtype=torch.bool, device="meta"), Rule.of(boost, 20.0)
        answer, played = launch.forward(values, scores, mask, torch.tensor(1.0), k, rule)
        gradients = Gradients(answer.values, answer.scores, answer.weights)
        launch.backward(values, played, gradients, rule, wanted)
        given_slots.pool(values, answer.weights, answer.slots, k)
        given_slots.unpool(answer.values, values, answer.weights, answer.slots, True, True)
    assert len({one.name for one in compiler.found.values()}) == 10  # all kernels there are
    for one in compiler.found.values():
        assert one.registers <= (255 if one.name == "field" else 160), one  # of 8 warps, so that they fit
        assert one.spilled <= 64, one
        assert one.shared <= SHARED[capability], one
        assert one.seconds < 30, one  # some 2 on a quiet machine
