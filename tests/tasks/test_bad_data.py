"""Bad data, in the order of the README's table: refused in one line, or trained on and counted."""

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from task_files import ROWS, complaint, lines, load
from tiny import tiny_tokenizer

import train
from shtopk.tasks.preprocess import encode_documents, encode_summaries

CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
JSON = json.dumps(ROWS)
LINES = lines(ROWS)
BINARY = bytes(range(256)) * 4
SUFFIXES = ("json", "jsonl", "csv", "parquet")


def parquet(table: pyarrow.Table, **options) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


PARQUET = parquet(pyarrow.Table.from_pylist(ROWS), write_page_checksum=True)
TWICE = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "text", "label"])
NO_TEXT = pyarrow.table({"text": ["a", None], "label": ["b", "c"]})


def damaged(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


NOTHING = "expected documents in {path}, got "
BROKEN = {  # name -> content, and the message from its beginning
    # Empty, or only whitespace.
    **{f"empty.{suffix}": ("", NOTHING + "an empty file") for suffix in SUFFIXES},
    **{f"blank.{suffix}": (" \n\t \n\r\n", NOTHING + "none") for suffix in SUFFIXES[:3]},
    "blank.parquet": (" \n", "cannot read {path}: Parquet file size is 2 bytes"),
    "rowless.parquet": (parquet(pyarrow.Table.from_pylist(ROWS)[:0]), NOTHING + "none"),
    # Cut or damaged.
    "cut.json": (JSON[:-5], "cannot read {path}: no JSON at line 1, column "),
    "cut.jsonl": (LINES[:-5], "cannot read {path}: no JSON at line 40, column "),
    "cut.csv": (CSV[:-5], "cannot read {path}: expected 2 cells in the row that ends at line 41, got 1; is the file "),
    "last.csv": (CSV[:-2], "expected a label in document 40 of {path}, got an empty text"),
    "middle.parquet": (PARQUET[: len(PARQUET) // 2], "cannot read {path}: Parquet magic bytes not found in footer"),
    "end.parquet": (PARQUET[:-1], "cannot read {path}: Parquet magic bytes not found in footer"),
    "damaged.parquet": (damaged(PARQUET, 60), "cannot read {path}: "),
    # Binary, compressed, in another encoding.
    **{f"binary.{suffix}": (BINARY, "expected {path} to be UTF-8, got the byte 0x80; ") for suffix in SUFFIXES[:3]},
    "binary.parquet": (BINARY, "cannot read {path}: Parquet magic bytes not found"),
    "control.jsonl": (b"\0\1\2{\7", "cannot read {path}: no JSON at line 1, column 1"),
    "control.csv": (b"\0\1\2{\7", "expected a column 'text' in {path}, got '\\x00\\x01\\x02{{\\x07'; choose one with"),
    **{
        f"packed.{suffix}": (
            gzip.compress(LINES.encode(), mtime=0),
            "expected {path} to be text, got a gzip archive; unpack it with gunzip",
        )
        for suffix in SUFFIXES[:3]
    },
    "sheet.csv": (
        b"PK\3\4\x14\0\x86",
        "expected {path} to be text, got a zip archive or a spreadsheet; unpack or export",
    ),
    "packed.parquet": (gzip.compress(PARQUET), "cannot read {path}: Parquet magic bytes not found"),
    **{
        f"wide.{suffix}": (
            LINES.encode("utf-16"),
            "expected {path} to be text, got UTF-16; convert it with `iconv -f utf",
        )
        for suffix in SUFFIXES[:3]
    },
    # Another content than the name says.
    "table.json": (CSV, "cannot read {path}: no JSON at line 1, column 1"),
    "table.jsonl": (CSV, "cannot read {path}: no JSON at line 1, column 1"),
    "table.parquet": (CSV, "cannot read {path}: Parquet magic bytes not found"),
    "lines.csv": (LINES, "expected a column 'text' in {path}, got '{{\"text\": \"document 0\"', "),
    "list.csv": (JSON, 'cannot read {path}: expected columns with different names, got \' "label": "a"}}\' twice'),
    "lines.parquet": (LINES, "cannot read {path}: Parquet magic bytes not found"),
    **{
        f"parquet.{suffix}": (PARQUET, "expected {path} to be text, got a Parquet file; let its name end in .parquet")
        for suffix in SUFFIXES[:3]
    },
    # Columns.
    "semicolons.csv": (CSV.replace(",", ";"), "expected a column 'text' in {path}, got 'text;label'; choose one with"),
    "wide.jsonl.json": (
        json.dumps([{f"column {i}": 1 for i in range(99)}]),
        "expected a column 'text' in {path}, got 'column 0', 'column 1', 'column 2', 'column 3', 'column 4', "
        "'column 5', 'column 6', 'column 7', 'column 8', 'column 9' and 89 more; choose one with --text_column",
    ),
    "lacking.parquet": (
        parquet(TWICE.select([0])),
        "expected a column 'label' in {path}, got 'text'; choose one with",
    ),
    "twice.csv": (
        "text,text,label\na,b,c\n",
        "cannot read {path}: expected columns with different names, got 'text' ",
    ),
    "twice.jsonl": ('{"text": "a", "text": "b", "label": 1}', "cannot read {path}: expected columns with different"),
    "twice.parquet": (parquet(TWICE), "cannot read {path}: expected columns with different names, got 'text' twice"),
    # Missing texts and labels.
    "null.jsonl": (LINES + '{"text": null, "label": "a"}', "expected a text in document 41 of {path}, got nothing"),
    "null.parquet": (parquet(NO_TEXT), "expected a text in document 2 of {path}, got nothing"),
    "unlabelled.csv": (CSV + "some text, \n", "expected a label in document 41 of {path}, got an empty text"),
    "unlabelled.jsonl": (
        LINES + '{"text": "a", "label": ""}',
        "expected a label in document 41 of {path}, got an empty",
    ),
    "digits.jsonl": (
        LINES + '{"text": "a", "label": ' + "9" * 5000 + "}",
        "cannot read {path}: line 41 has a number of",
    ),
    # Too few classes or documents.
    "same.csv": (CSV.replace(",b", ",a"), "expected at least two classes in {path}, got a"),
    "equal.jsonl": (
        lines([{"text": "x", "label": i % 2} for i in range(40)]),
        "expected enough documents of a class in {path} to draw a test split from, got 40 documents, 1 of them ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_data_is_refused_in_one_line(name, write):
    content, expected = BROKEN[name]
    path = write(name, content)
    assert complaint(train_file=path).startswith(expected.format(path=path))


@pytest.mark.parametrize(("summary", "got"), [('""', "an empty text"), ('" "', "an empty text"), ("null", "nothing")])
def test_a_missing_summary_is_refused(summary, got, write):
    path = write("a.jsonl", '{"text": "a", "gist": "b"}\n{"text": "a", "gist": ' + summary + "}")
    message = complaint(train_file=path, summary_column="gist")
    assert f"in document 2 of {path}" in message and message.endswith(f"got {got}")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_lacks_is_refused(split, write):
    other = write("other.jsonl", '{"text": "x", "label": "c"}')
    message = complaint(train_file=write("train.jsonl", LINES), **{f"{split}_file": other})
    assert message == f"expected the labels of {other} to occur in training ('a', 'b'), got 'c'"


def test_a_folder_and_a_name_that_no_file_can_have_are_refused(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert complaint(train_file=str(tmp_path / "a.csv")).endswith("found a folder")
    assert complaint(train_file=f"{'x' * 300}.csv").endswith(": File name too long")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(write):
    path = write("a.csv", CSV)
    Path(path).chmod(0)
    assert complaint(train_file=path) == f"cannot read {path}: Permission denied"


def test_what_cannot_be_read_is_refused_by_train_with_exit_code_2(words, write, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([*words, "--train_file", write("a.jsonl", LINES[:-5])])
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        stop.value.code == 2 and line.startswith("train.py: cannot read ") and line.endswith("is the file complete?")
    )


# Trained on


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: f"\ufeff{text}",
    lambda text: text.replace("\n", "\n\n") + "\n",
], ids=["CRLF", "BOM", "blank lines"])  # fmt: skip
def test_line_ends_marks_and_blank_lines_change_nothing(name, change, write):
    text = {"a.jsonl": LINES, "a.json": json.dumps(ROWS, indent=1), "a.csv": CSV}[name]
    data = load(train_file=write(name, change(text)))
    assert sorted(text for split in data.values() for text in split["text"]) == sorted(row["text"] for row in ROWS)


def test_a_nul_character_is_part_of_a_text(write):
    for name, text in (
        ("a.csv", CSV.replace("document 3,", "docu\0ment,")),
        ("a.jsonl", LINES.replace('t 3"', '\\u0000"')),
    ):
        data = load(train_file=write(name, text))
        assert sum("\0" in text for split in data.values() for text in split["text"]) == 1


def test_json_and_json_lines_are_told_apart_by_their_content(write):
    for name, content in (("a.jsonl", JSON), ("a.json", LINES)):
        assert len(load(train_file=write(name, content))["train"]) == 28


@pytest.mark.parametrize("label", ["--5", "9" * 5000, "\u00b2", "-"])
def test_a_label_that_only_looks_like_a_number_is_a_name(label, write):
    data = load(
        train_file=write("a.jsonl", lines([row | {"label": ("1", label)[i % 2]} for i, row in enumerate(ROWS)]))
    )
    assert sorted(data["train"].features["label"].names) == sorted(["1", label])


def test_odd_documents_are_trained_on_and_counted_in_a_line(write, words, capsys):
    rows = [{"more": None, "text": f"goal \0 {' '.join(f'{i:06b}')}", "label": i % 2, "n": [i]} for i in range(40)]
    rows += [{"text": text, "label": 0, "other": 1} for text in ("", " \n")]
    few = write("few.jsonl", lines(rows))
    all_ = write("all.jsonl", lines([*rows, {"text": "a b " * 250_000, "label": 1}]))
    results = train.main([*words, "--epochs", "1", "--train_file", all_, "--validation_file", few, "--test_file", few,
                          "--max_tokens", "12"])  # fmt: skip
    assert results["test_documents"] == 42 and results["updates"] == 6
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("documents: ")]
    assert line == (
        "documents: 6 without text (train 2, validation 2, test 2); "
        "1 reach max_tokens, where longer ones are cut (train 1)"
    )


def told(capsys, column="text", encode=encode_documents, **texts) -> str:
    splits = DatasetDict({name: Dataset.from_dict({column: its}) for name, its in texts.items()})
    capsys.readouterr()
    encode(splits)
    return capsys.readouterr().out


def test_a_document_of_a_megabyte_is_read_in_full_and_its_length_told(capsys):
    tokenizer = tiny_tokenizer()
    said = told(capsys, encode=lambda splits: encode_documents(tokenizer, splits), train=["a", "a b " * 250_000])
    assert said == (
        "documents: the longest has 500,002 tokens, which training holds in memory at once; max_tokens cuts\n"
    )


def test_nothing_is_told_where_nothing_is_lost_and_only_the_main_process_tells(capsys, monkeypatch):
    tokenizer = tiny_tokenizer()
    assert told(capsys, encode=lambda splits: encode_documents(tokenizer, splits, 5), train=["a b"]) == ""
    assert told(capsys, encode=lambda splits: encode_documents(tokenizer, splits, 5), train=[""]) != ""
    monkeypatch.setenv("RANK", "1")
    assert told(capsys, encode=lambda splits: encode_documents(tokenizer, splits, 5), train=[""]) == ""


@pytest.mark.parametrize("start", [None, 2], ids=["whole", "without its start"])
def test_summaries_that_are_cut_are_counted(start, capsys):
    tokenizer = tiny_tokenizer()
    said = told(capsys, "summary", lambda splits: encode_summaries(tokenizer, splits, 5, start),
                train=["a b", "a b c", "a b c d"], test=["a"])  # fmt: skip
    assert said == "summaries: 2 reach max_summary_tokens, where longer ones are cut (train 2)\n"
