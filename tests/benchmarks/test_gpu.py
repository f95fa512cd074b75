"""What runs on a GPU, tried out on a CPU: parts and their limits, the kit and its size, cells and tables."""

import argparse
import json
import sys
import time
from functools import partial

import gpu
import kit
import paper
import pytest
import speed_gpu
import torch
from dftopk import dftopk
from gpu import Part, run
from speed_gpu import METHODS, cell_of, floor_bytes, measure, too_large

from shtopk import hard_topk


def part(code):
    return Part("some", "some", 1.0, lambda seconds, arguments: ["-c", code], ())


def run_code(code, tmp_path, seconds=20.0):
    return run(part(code), ["-c", code], seconds, tmp_path / "some.log", {"PATH": "/usr/bin:/bin"})


def test_a_part_at_its_limit_is_stopped_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 0.5)
    child = "import time, pathlib; time.sleep(3); pathlib.Path('left').touch()"
    code = (
        f"import os, signal, subprocess, sys, time; os.chdir({str(tmp_path)!r}); print('begun', flush=True); "
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN); subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "time.sleep(30)"
    )
    found = run_code(code, tmp_path, seconds=1.0)
    assert found["outcome"] == "stopped at its limit, killed"
    assert found["seconds"] < 10
    assert found["last_lines"][-1] == "begun"
    time.sleep(3)
    assert not (tmp_path / "left").exists()


def test_a_part_that_fails_says_how(tmp_path):
    found = run_code("print('first'); raise SystemExit('the reason')", tmp_path)
    assert found["outcome"] == "failed with exit code 1"
    assert set(found["last_lines"][1:]) == {"first", "the reason"}
    assert run_code("print('figures')", tmp_path)["outcome"] == "done"


@pytest.fixture
def three_parts(monkeypatch, tmp_path):
    """A part that fails, one that sleeps, one that writes a figure; and how to run them."""
    codes = {"fails": "raise SystemExit('no')", "sleeps": "import time; time.sleep(60)", "works": "print('well')"}
    parts = tuple(
        Part(name, f"what {name}", 1 / 3, lambda seconds, arguments, code=code: ["-c", code], ("works.md",))
        for name, code in codes.items()
    )
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "GRACE", 1)
    facts = {"device": "a device", "torch": "2", "cuda": None, "triton": None, "python": "3"}
    monkeypatch.setattr(gpu, "facts", lambda device, environment: facts)

    def main(*words):
        given = ["gpu.py", "--device=cpu", f"--results={tmp_path}", f"--kit={tmp_path / 'no kit'}", *words]
        monkeypatch.setattr(sys, "argv", given)
        gpu.main()
        return json.loads((tmp_path / "gpu.json").read_text()), (tmp_path / "gpu.md").read_text()

    return main


def test_a_part_that_fails_or_takes_too_long_does_not_keep_the_next_from_running(three_parts, tmp_path):
    (tmp_path / "works.md").touch()
    record, page = three_parts("--minutes=0.1")
    assert [one["outcome"] for one in record["parts"]] == ["failed with exit code 1", "stopped at its limit", "done"]
    assert "Every part was run." in page and "Not to the end: fails, sleeps" in page
    assert "[works.md](works.md)" in page
    assert all((tmp_path / f"{name}.log").exists() for name in ("fails", "sleeps", "works"))


def test_what_was_not_run_is_named_and_can_be_run_later(three_parts, tmp_path):
    _, page = three_parts("--parts", "works")
    assert "Not run: fails (what fails), sleeps (what sleeps)." in page
    record, page = three_parts("--parts", "fails")
    assert [one["part"] for one in record["parts"]] == ["works", "fails"]
    assert "Not run: sleeps (what sleeps)." in page
    (tmp_path / "gpu.json").write_text(json.dumps(record | {"device": "another"}))
    with pytest.raises(SystemExit, match="has figures of device another, this is a device"):
        three_parts("--parts", "works")


def test_every_part_has_a_command(tmp_path):
    arguments = argparse.Namespace(device="cuda", results=tmp_path)
    for one in gpu.PARTS:
        words = one.words(60.0, arguments)
        assert words[0] == "-m" or (gpu.ROOT / words[0]).is_file()
    assert 0.9 < sum(one.share for one in gpu.PARTS) <= 1.0001


def test_a_kit_that_is_too_large_is_refused_in_a_line(capsys):
    kit.check_size(50 * kit.MIB, 2 * kit.MIB, most=64)
    assert "kit 50.0 MiB, repository 2.0 MiB" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="expected at most 64 MiB together, got 65"):
        kit.check_size(63 * kit.MIB, 2 * kit.MIB, most=64)


def test_the_kits_packages_have_the_versions_of_the_constraints():
    assert kit.version("transformers").startswith("5.23.")
    assert all(kit.version(name) for name in (*kit.WHEELS, kit.SOURCE))


def test_weights_come_out_of_the_kit_as_they_went_in():
    numbers = (torch.randn(20001) / 20).half().numpy().tobytes()
    assert kit.unsqueeze(kit.squeeze(numbers)) == numbers
    assert len(kit.squeeze(numbers)) < 0.95 * len(numbers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured(method, dtype, monkeypatch):
    monkeypatch.setattr(speed_gpu, "BATCH", 2)
    found = measure(method, 64, 8, dtype, "cpu")
    assert "skipped" not in found
    assert all(found[f"{name}_ms"] > 0 for name in ("forward", "backward", "both", "loop"))
    assert found["no_graph"] == "no CUDA device"


def test_what_would_not_fit_is_skipped_with_the_reason():
    assert "more than half the memory" in too_large("iterative top-k", 65536, 2048, "cpu")
    assert too_large("successive halving", 65536, 2048, "cpu") is None


def test_a_method_that_fails_does_not_take_the_others_with_it(monkeypatch):
    def broken(values, scores, k):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setitem(METHODS, "broken", broken)
    assert measure("broken", 64, 8, "float32", "cpu")["skipped"] == "failed: no kernel for this"


def test_the_floor_counts_what_must_move():
    forward, backward = floor_bytes(1024, 8, 4)
    assert forward == 4 * 16 * (1024 + 2 * 8 * 256)
    assert backward == 4 * 16 * (1024 + 1024 * 256 + 2 * 8 * 256)


def test_the_speed_table_is_made_of_whatever_was_measured(monkeypatch):
    names = list(METHODS)
    whole = {"method": names[0], "n": 64, "k": 8, "dtype": "float32", "saved_bytes": 2**20, "peak_mib": 3.0}
    whole |= {f"{name}_ms": 2.0 for name in speed_gpu.TIMES} | {"graph_both_ms": 0.5}
    waiting = {key: value for key, value in whole.items() if not key.startswith("graph")}
    waiting |= {"method": names[1], "no_graph": "waits for the host (a.py, line 3)"}
    skipped = {"method": names[2], "n": 64, "k": 8, "dtype": "float32", "skipped": "too large"}
    counts = {"forward_launches": 4, "forward_waits": 1, "backward_launches": 5, "backward_waits": 0}
    record = {"command": "python x.py", "device": "a device", "torch": "2", "shapes": [[64, 8]], "goals": [[64, 8]],
              "copy_bytes_per_second": 1e12, "runs": [whole, waiting, skipped],
              "counts": [counts | {key: whole[key] for key in ("n", "k", "dtype", "method")}]}  # fmt: skip
    page = speed_gpu.table(record)
    row = next(line for line in page.splitlines() if line.startswith(f"| {names[0]} "))
    assert row.endswith("| 1.0 | 3 | 4 + 5 | 1 + 0 |")
    assert "| 2 / 0.5 | 2 / - | - |" in page
    assert "no graph: waits for the host (a.py, line 3): softmax" in page
    assert f"3 of {2 * len(METHODS)} cells" in page and "`python x.py` on a device" in page


def test_the_speed_goes_on_where_it_stopped(tmp_path, monkeypatch):
    words = ["speed_gpu.py", "--device=cpu", f"--results={tmp_path}", "--shapes", "64x8"]
    monkeypatch.setattr(speed_gpu, "BATCH", 1)
    monkeypatch.setattr(speed_gpu, "COPIED", 2**20)
    monkeypatch.setattr(sys, "argv", [*words, "--seconds=0"])
    speed_gpu.main()
    assert json.loads((tmp_path / "speed-gpu.json").read_text())["runs"] == []
    monkeypatch.setattr(sys, "argv", words)
    speed_gpu.main()
    runs = json.loads((tmp_path / "speed-gpu.json").read_text())["runs"]
    assert len({cell_of(one) for one in runs}) == len(runs) == 2 * len(METHODS)
    monkeypatch.setattr(speed_gpu, "measure", lambda *_: pytest.fail("measured again"))
    speed_gpu.main()


def test_the_papers_grid_can_be_left_unfinished(tmp_path, monkeypatch):
    words = ["paper.py", "--device=cpu", f"--results={tmp_path}", "--grid=small"]
    monkeypatch.setitem(paper.GRIDS, "small", [(16, 2), (64, 2)])
    monkeypatch.setattr(paper, "measure", partial(one_cell, tmp_path))
    monkeypatch.setattr(sys, "argv", [*words, "--seconds=2"])
    paper.main()
    rows = (tmp_path / "paper-small.md").read_text().splitlines()
    assert rows[2].startswith("| 16 | 2 |") and not any(row.startswith("| 64 ") for row in rows)


def one_cell(folder, name, n, k, device, least):
    assert least == 0.02
    if n > 16:
        time.sleep(2)
    return {"method": name, "n": n, "k": k, "temperature": None, "nccs": 1.0, "seconds": 1.0}


def test_dftopk_keeps_the_best_each_times_its_gate():
    values, scores = torch.randn(2, 9, 4), torch.randn(2, 9, requires_grad=True)
    out, hard = dftopk(values, scores, 3), hard_topk(values, scores, 3)
    gates = (out / hard.values).mean(-1)
    assert (gates > 0.5).all() and (gates <= 1).all()
    threshold = scores.topk(4).values[:, 2:].mean(-1, keepdim=True)
    torch.testing.assert_close(gates, ((hard.scores - threshold) / 0.0625).sigmoid())
    out.sum().backward()
    assert ((scores.grad != 0).sum(-1) <= 4).all() and (scores.grad != 0).any()
