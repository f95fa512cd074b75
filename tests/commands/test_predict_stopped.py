"""`shtopk predict` that is stopped, or that nobody reads on: nothing is lost, and it goes on where it stopped."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from answering import answers, classifier, documents

import shtopk.models
from shtopk.commands import main
from shtopk.models import (
    predict,
)
from shtopk.training.ending import Terminated

COMMAND = [sys.executable, "-m", "shtopk", "predict"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def test_a_run_that_was_cut_off_anywhere_goes_on_to_the_same_lines(shtopk, checkpoint, rows, out):
    words = ["predict", checkpoint, rows(documents(40)), "--output", out, "--keep", "id"]
    shtopk(*words)
    expected, whole = answers(out), out.read_bytes()
    for cut in (0, 1, 2, 30, len(whole) // 2, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:cut])
        shtopk(*words, "--resume", "true")
        for line, one in zip(answers(out), expected, strict=True):
            assert (line["id"], line["prediction"]) == (one["id"], one["prediction"])
            assert line["probability"] == pytest.approx(one["probability"], abs=1e-5)


def test_other_documents_than_those_that_were_answered_are_not_gone_on_with(refused, shtopk, checkpoint, rows, out):
    words = ["--output", out, "--keep", "id"]
    shtopk("predict", checkpoint, rows(documents(20)), *words)
    whole = out.read_bytes()
    fewer, others = rows(documents(10), "fewer.jsonl"), rows(documents(30)[5:], "others.jsonl")
    assert "got 10; is it the same input?" in refused("predict", checkpoint, fewer, *words, "--resume", "true")
    assert "another 'id' than line 20" in refused("predict", checkpoint, others, *words, "--resume", "true")
    assert "has 'id' as well" in refused("predict", checkpoint, others, "--output", out, "--resume", "true")
    assert out.read_bytes() == whole


def test_a_full_disk_ends_with_one_line(checkpoint, write, capsys):
    assert main(["predict", str(checkpoint), write("a.txt", "a\n"), "--output", "/dev/full"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "shtopk predict: cannot write /dev/full: No space left on device; answers written: 0; go on"
    )


def test_a_disk_that_fills_up_keeps_what_was_written_and_the_run_goes_on(
    checkpoint, rows, out, capsys, monkeypatch, shtopk
):
    words = ["predict", str(checkpoint), str(rows(documents(100))), "--output", str(out), "--keep", "id"]
    write, room = os.write, [3000]

    def filling(descriptor, content):
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(descriptor, content[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", filling)
        assert main([*words, "--overwrite_output_dir", "true"]) == 1
    line = capsys.readouterr().err.strip()
    assert f"No space left on device; answers written: 16; go on with: shtopk {' '.join(words)} --resume true" in line
    assert out.stat().st_size == 3000
    shtopk(*words, "--resume", "true")
    assert [line["id"] for line in answers(out)] == list(range(100))


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_ends_with_one_line_that_says_how_to_go_on(checkpoint, rows, out, capsys, monkeypatch, stop, code):
    def stopped(model, tokenizer, texts, **options):
        real = predict(model, tokenizer, texts, **options)
        yield from (next(real) for _ in range(16))
        raise stop

    monkeypatch.setattr(shtopk.models, "predict", stopped)
    words = ["predict", str(checkpoint), str(rows(documents(100))), "--output", str(out)]
    assert main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"shtopk predict: stopped; answers written: 16; go on with: shtopk {' '.join(words)} --resume true"
    )
    assert len(answers(out)) == 16


@pytest.mark.slow
def test_who_reads_one_line_and_leaves_ends_it_in_silence(checkpoint, write):
    source = write("a.txt", "a b c\n" * 20_000)
    line = f"{' '.join(COMMAND)} {checkpoint} {source} | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100)
    first, code = found.stdout.splitlines()
    assert "prediction" in json.loads(first)
    assert (code, found.stderr) == ("141", "")


@pytest.mark.slow
def test_answers_to_a_slow_pipe_come_while_it_is_open(checkpoint):
    process = subprocess.Popen([*COMMAND, str(checkpoint), "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for text in (b"a b\n", b"c d\ne f\n"):
        process.stdin.write(text)
        process.stdin.flush()
        for _ in range(text.count(b"\n")):
            assert "prediction" in json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped_leaves_whole_lines_and_goes_on(checkpoint, rows, out, sent, code):
    source = str(rows(documents(4_000)))
    words = [*COMMAND, str(checkpoint), source, "--output", str(out), "--keep", "id"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.stat().st_size > 50_000):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(sent)
    _, said = process.communicate()
    assert process.returncode == code
    assert said.startswith(f"shtopk predict: stopped; answers written: {len(answers(out)):,}; go on with: ")
    assert 0 < len(answers(out)) < 4_000
    subprocess.run([*words, "--resume", "true"], check=True)
    assert [line["id"] for line in answers(out)] == list(range(4_000))


@pytest.mark.slow
def test_a_bar_is_shown_on_a_terminal(checkpoint, write, out):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    words = [*COMMAND, str(checkpoint), write("a.txt", "a\nb\n"), "--output", str(out)]
    subprocess.run(words, stderr=theirs, check=True, timeout=100)
    shown = os.read(ours, 10_000)
    for descriptor in (ours, theirs):
        os.close(descriptor)
    assert b"predict: 100%" in shown
    assert b"2/2" in shown
