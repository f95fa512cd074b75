"""Rows come one by one, from files of every kind and from pipes; broken ones are named, and the next one follows."""

import gzip
import json
import os
import threading
import time
import tracemalloc
from itertools import islice

import pyarrow
import pyarrow.parquet
import pytest

from shtopk.tasks import records, streams
from shtopk.tasks.columns import Columns
from shtopk.tasks.records import Broken, numbered
from shtopk.tasks.streams import Row, arriving, check, count, plain, rows

TEXTS = ["one", "", 'two, "quoted"\u2028 and more', "Grüße 漢字"]
KEEP = Columns(("body",), keep=("id",))


def table(path, texts=TEXTS):
    """A file of a column "body" and a column "id"."""
    kind = path.suffix
    objects = [{"id": i, "body": text, "other": None} for i, text in enumerate(texts)]
    if kind == ".json":
        path.write_text(json.dumps(objects, indent=1), encoding="utf-8")
    elif kind == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, objects)) + "\n", encoding="utf-8")
    elif kind == ".csv":
        lines = ["id,body", *(f'{i},"' + text.replace('"', '""') + '"' for i, text in enumerate(texts))]
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), path)
    return str(path)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_texts_and_columns_to_keep_come_in_order_from_every_kind_of_file(kind, tmp_path):
    source = table(tmp_path / f"mine.{kind}")
    check(source, KEEP)
    found = list(rows(source, KEEP))
    assert [row.text for row in found] == TEXTS
    assert [int(row.kept["id"]) for row in found] == [0, 1, 2, 3]
    assert all(row.kept.keys() == {"id"} and source in row.place for row in found)


@pytest.mark.parametrize(("content", "texts"), [
    (b"a\n\nb\n", ["a", "", "b"]), (b"\n\n\n", ["", "", ""]), (b"a", ["a"]), (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
    (b" a \x0b\xe2\x80\xa8b \n", [" a \x0b\u2028b "]), (b"x\0y\n", ["x\0y"]),
])  # fmt: skip
def test_a_line_of_a_text_file_is_a_document_and_an_empty_line_too(content, texts, write):
    path = write("a.txt", content)
    check(path, Columns())
    assert [row.text for row in rows(path, Columns())] == texts
    assert count(path) == content.count(b"\n")


def test_a_json_file_may_hold_lines_and_a_jsonl_file_a_list(write):
    assert [row.text for row in rows(write("a.json", '{"text": "a"}\n{"text": "b"}'), Columns())] == ["a", "b"]
    assert [row.text for row in rows(write("a.jsonl", ' [{"text": "a"}, {"text": "b"}]'), Columns())] == ["a", "b"]


LINES = {
    "no JSON": ('{"text": "x"', "line 2, column"),
    "a list": ("[1]", "line 2 of .* to be an object, got list"),
    "no such column": ('{"id": 3}', "a column 'text' in line 2 of .*, got 'id'; choose one with --text_column"),
    "nothing": ('{"text": null}', "a text in line 2 of .*, got nothing"),
    "a number": ('{"text": 5}', "a text in line 2 of .*, got 5 .int"),
    "half a pair": (r'{"text": "\ud800"}', "line 2 of .* a lone surrogate"),
    "a column twice": ('{"text": "a", "text": "b"}', "line 2 of .* 'text' twice"),
    "other bytes": (b'{"text": "\xe9"}', "line 2 of .* to be UTF-8, got the byte 0xe9"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_broken_line_is_named_and_the_next_one_follows(name, write):
    line, reason = LINES[name]
    line = line if isinstance(line, bytes) else line.encode()
    path = write("a.jsonl", b'{"text": "a"}\n' + line + b'\n{"text": "c"}\n')
    first, broken, last = rows(path, Columns())
    assert (first.text, last.text) == ("a", "c")
    with pytest.raises(ValueError, match=reason):
        check(path, Columns())
    assert isinstance(broken, Broken) and path in broken.reason and "\n" not in broken.reason
    check(path, Columns(), skip=True)


def test_broken_rows_of_other_files_are_named_and_the_next_ones_follow(write, tmp_path):
    first, short, bytes_, last = rows(write("a.csv", b"text,id\na,1\nb\n\xff,3\n\nd,4\n"), Columns())
    assert (first.text, last.text) == ("a", "d")
    assert "expected 2 cells in the row that ends at line 3" in short.reason
    assert "line 4" in bytes_.reason and "UTF-8" in bytes_.reason
    first, broken, last = rows(write("a.json", '[{"text": "a"}, 5, {"text": "c"}]'), Columns())
    assert (first.text, last.text) == ("a", "c") and "entry 2 of" in broken.reason
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None, "c"]}), tmp_path / "a.parquet")
    first, broken, last = rows(str(tmp_path / "a.parquet"), Columns())
    assert (first.text, last.text) == ("a", "c") and "row 2 of" in broken.reason


REFUSED = {
    "missing": ("none.txt", None, "found none there"),
    "empty": ("a.txt", b"", "an empty file"),
    "a header alone": ("a.csv", b"text,id\n", "got none"),
    "no rows": ("a.jsonl", b"\n\n", "got none"),
    "another kind": ("a.docx", b"x", "expected a file ending in .txt"),
    "a table of another kind": ("a.TSV", b"text\tid", "save it as .csv, with commas"),
    "a gzip archive": ("a.txt", gzip.compress(b"hello" * 99), "gunzip"),
    "a gzip archive as JSON": ("a.json", gzip.compress(b"hello" * 99), "gunzip"),
    "a gzip archive as CSV": ("a.csv", gzip.compress(b"hello" * 99), "gzip|UTF-8|column"),
    "no Parquet": ("a.parquet", b"text", "is the file complete?"),
    "an open quote": ("a.csv", b'text\n"a', "is the file complete?"),
    "no text column in CSV": ("a.csv", b"a,b\n1,2\n", "a column 'text' in .*, got 'a', 'b'; choose one with --text_c"),
    "a column twice in CSV": ("a.csv", b"text,text\n1,2\n", "'text' twice"),
    "half a list": ("a.json", b'[{"text": "a"}, {"te', "is the file complete?"),
    "a list in other bytes": ("a.json", b'[{"text": "\xe9"}]', "0xe9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_it(name, write, tmp_path):
    file, content, reason = REFUSED[name]
    path = str(tmp_path / file) if content is None else write(file, content)
    with pytest.raises(ValueError, match=reason) as caught:
        check(path, Columns())
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    (tmp_path / "a.txt").mkdir()
    os.mkfifo(tmp_path / "b.txt")
    for name, reason in (("a.txt", "a folder"), ("b.txt", "standard input")):
        with pytest.raises(ValueError, match=reason):
            check(str(tmp_path / name), Columns())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet"])
def test_a_column_to_keep_that_is_nowhere_is_refused(kind, tmp_path):
    with pytest.raises(ValueError, match="'url'"):
        check(table(tmp_path / f"mine.{kind}"), Columns(("body",), keep=("id", "url")))


def test_a_column_to_keep_may_be_missing_from_some_objects_but_not_from_plain_text(write):
    first, second = rows(write("a.jsonl", '{"text": "a"}\n{"text": "b", "id": 7}\n'), Columns(keep=("id",)))
    assert (first.kept, second.kept) == ({}, {"id": 7})
    with pytest.raises(ValueError, match="lines of text, and no column 'id'"):
        check(write("a.txt", "a\n"), Columns(keep=("id",)))


def test_a_row_may_lack_one_of_several_columns_of_texts_as_in_training_and_a_file_may_not(write):
    columns = ("title", "body")
    path = write("a.jsonl", '{"body": "a"}\n{"title": "b"}\n{"title": "c", "body": "d"}\n{"id": 1}\n')
    check(path, Columns(columns), skip=True)
    *good, broken = rows(path, Columns(columns))
    assert [row.text for row in good] == ["a", "b", "c d"]
    assert isinstance(broken, Broken) and "a column 'title' in line 4" in broken.reason
    with pytest.raises(ValueError, match=r"a column 'head' of texts in .*, found none; choose others"):
        check(path, Columns((*columns, "head")), skip=True)
    check(write("a.txt", "a\n"), Columns(columns))
    check(write("long.jsonl", '{"body": "a"}\n' * 110 + '{"title": "b"}\n'), Columns(columns))  # it may begin later


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_a_long_file_is_read_in_little_memory(kind, tmp_path):
    path = tmp_path / f"long.{kind}"
    number, text = 20_000, "word " * 40
    if kind == "txt":
        path.write_text((text + "\n") * number)
    else:
        table(path, [text] * number)
    columns = Columns() if kind == "txt" else KEEP
    tracemalloc.start()
    assert sum(isinstance(row, Row) for row in rows(str(path), columns)) == number
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6  # the texts have 4 MB


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_a_pipe_gives_its_lines_as_they_come_and_says_where_none_does(pipe):
    read, write = pipe
    lines = arriving(read, patience=0.05)

    def slowly():
        for part in (b"a\nb\nhalf", b" a line\n", b"end"):
            os.write(write, part)
            time.sleep(0.3)
        os.close(write)

    thread = threading.Thread(target=slowly)
    thread.start()
    found = list(lines)
    thread.join()
    assert [line for line in found if line is not None] == [b"a", b"b", b"half a line", b"end"]
    assert found[:3] == [b"a", b"b", None]  # before the next part has come


def test_a_line_of_many_parts_comes_whole(pipe):
    read, write = pipe
    line = os.urandom(2_000_000).hex().encode()
    thread = threading.Thread(target=lambda: (os.write(write, line), os.close(write)))
    thread.start()
    assert list(islice(arriving(read), 5)) == [line]
    thread.join()


def test_a_line_that_comes_byte_by_byte_comes_whole_and_so_do_those_after_it(pipe):
    read, write = pipe
    line = b"a" * 10_000

    def slowly():
        for _ in line:
            os.write(write, b"a")
            time.sleep(0)
        os.write(write, b"\nb\nc")
        os.close(write)

    thread = threading.Thread(target=slowly)
    thread.start()
    found = [line for line in arriving(read) if line is not None]
    thread.join()
    assert found == [line, b"b", b"c"]


def test_a_line_without_end_is_refused(monkeypatch):
    for module in (streams, records):
        monkeypatch.setattr(module, "LONGEST", 2**17)
    with open("/dev/zero", "rb") as zero, pytest.raises(ValueError, match="line 1 is longer than"):
        list(numbered(arriving(zero.fileno()), "standard input"))


def test_values_that_json_has_no_form_for_travel_along_as_texts_and_nan_as_null():
    import datetime

    value = {"day": datetime.date(2026, 1, 2), "size": float("nan"), "n": [1, 2.5, None]}
    assert plain(value) == {"day": "2026-01-02", "size": None, "n": [1, 2.5, None]}
