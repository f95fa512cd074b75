"""Whole lines are written, nothing is overwritten unasked, and a file that was cut off is gone on with."""

import json
import os

import pytest

from shtopk.tasks.jsonl import JsonLines


def put(lines, *answers):
    for answer in answers:
        lines.add({"prediction": answer})
    lines.flush()
    lines.close()


def answers(path):
    return [json.loads(line)["prediction"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def test_lines_wait_for_the_flush_and_the_file_for_the_first(path):
    lines = JsonLines(path)
    lines.add({"prediction": "ü"})
    assert not path.exists()
    lines.flush()
    assert path.read_bytes() == '{"prediction": "ü"}\n'.encode()
    put(lines, "b")
    assert (answers(path), lines.done, lines.written) == (["ü", "b"], 0, 2)


def test_a_file_that_exists_is_refused_and_kept(path):
    path.write_text("precious")
    with pytest.raises(ValueError, match="exists; name another file, or give --overwrite true or --resume true"):
        JsonLines(path)
    assert path.read_text() == "precious"


def test_a_file_that_came_into_being_meanwhile_is_not_overwritten(path):
    lines = JsonLines(path)
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        put(lines, "a")
    assert path.read_text() == "precious"


def test_a_file_is_overwritten_on_request_when_there_is_something_to_write(path):
    path.write_text("old\n")
    lines = JsonLines(path, overwrite=True)
    assert path.read_text() == "old\n"
    put(lines, "a")
    assert answers(path) == ["a"]


@pytest.mark.parametrize("half", [b"", b"{", b'{"', b'{"predic', '{"prediction": "ü'.encode()[:-1]])
def test_whole_lines_count_and_half_a_last_one_is_cut_away(half, path):
    whole = b'{"prediction": "a"}\n{"id": 7, "prediction": "b"}\n'
    path.write_bytes(whole + half)
    lines = JsonLines(path, resume=True)
    assert (lines.done, lines.last) == (2, {"id": 7, "prediction": "b"})
    assert path.read_bytes() == whole + half
    put(lines, "c")
    assert answers(path) == ["a", "b", "c"]
    assert (lines.done, lines.written) == (2, 1)


@pytest.mark.parametrize("content", [b"", b'{"pred'])
def test_a_file_without_a_whole_line_is_gone_on_with_from_the_start(content, path):
    path.write_bytes(content)
    lines = JsonLines(path, resume=True)
    assert lines.done == 0
    put(lines, "a")
    assert answers(path) == ["a"]


def test_resuming_what_is_not_there_begins(path):
    put(JsonLines(path, resume=True), "a")
    assert answers(path) == ["a"]


@pytest.mark.parametrize("content", [b"precious", b"a,b\n1,2\n", b'{"text": "a"}\n', b"[1]\n", b"\xff\xfe\n", b"7\n"])
def test_a_file_of_other_lines_is_not_gone_on_with(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot go on with"):
        JsonLines(path, resume=True)
    assert path.read_bytes() == content


def test_a_full_disk_is_an_error_and_what_was_written_stays(path, monkeypatch):
    lines, write = JsonLines(path), os.write
    lines.add({"prediction": "a"})
    lines.flush()
    room = [12]

    def full(descriptor, content):
        if not room:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lines.add({"prediction": "b"})
        with pytest.raises(OSError, match="No space"):
            lines.flush()
    assert lines.written == 1
    lines.close()
    again = JsonLines(path, resume=True)
    put(again, "b", "c")
    assert answers(path) == ["a", "b", "c"]


def test_a_device_is_written_to_as_it_is():
    lines = JsonLines("/dev/full")
    lines.add({"prediction": "a"})
    with pytest.raises(OSError, match="No space"):
        lines.flush()


@pytest.mark.parametrize(("name", "reason"), [("", "the folder"), ("none/out.jsonl", "found none")])
def test_where_no_file_can_be_is_refused_at_once(name, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        JsonLines(tmp_path / name)


def test_a_number_that_is_not_finite_is_refused_and_a_lone_surrogate_is_escaped(path):
    lines = JsonLines(path)
    with pytest.raises(ValueError):
        lines.add({"prediction": float("nan")})
    put(lines, "\ud800")
    assert path.read_bytes() == b'{"prediction": "\\ud800"}\n'


def test_a_descriptor_stays_open(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        put(JsonLines(file.fileno()), "a")
        put(JsonLines(file.fileno()), "b")
    assert answers(tmp_path / "x") == ["a", "b"]
