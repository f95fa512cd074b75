"""Bad data, in the order of the table in docs/data.md: refused in one line, or trained on and counted."""

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from refusals import assert_refused
from task_files import FILES, ROWS, complaint, lines, load, parquet
from tiny import tiny_tokenizer

import train
from shtopk.tasks.preprocess import encode_documents, encode_summaries

JSON, LINES, CSV, PARQUET = FILES.values()
TEXT_FILES = ("json", "jsonl", "csv")
BINARY = bytes(range(256)) * 4
TWICE = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "text", "label"])
NO_TEXT = pyarrow.table({"text": ["a", None], "label": ["b", "c"]})


def damaged(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


BROKEN = {  # name -> content, and what the message names beside the file
    # Empty, or only whitespace.
    **{f"empty.{suffix}": ("", "documents", "empty") for suffix in FILES},
    **{f"blank.{suffix}": (" \n\t \n\r\n", "documents", "none") for suffix in TEXT_FILES},
    "blank.parquet": (" \n", "Parquet", "2 bytes"),
    "list.json": ("[]", "documents", "none"),
    "header.csv": ("text,label\n", "documents", "none"),
    "rowless.parquet": (parquet(pyarrow.Table.from_pylist(ROWS)[:0]), "documents", "none"),
    # Cut or damaged.
    "cut.json": (JSON[:-9], "line 160", "column 11"),
    "cut.jsonl": (LINES[:-5], "line 40"),
    "cut.csv": (CSV[:-5], "2 cells", "line 41", "1"),
    "last.csv": (CSV[:-2], "label", "document 40", "empty"),
    "long.csv": ("text,label\na,b,c\n", "2 cells", "line 2", "3"),
    "quote.csv": ('text,label\n"a,b\n', "end of data"),
    "middle.parquet": (PARQUET[: len(PARQUET) // 2], "Parquet"),
    "end.parquet": (PARQUET[:-1], "Parquet"),
    "damaged.parquet": (damaged(PARQUET, 60), "cannot read"),
    # Binary, compressed, in another encoding.
    **{f"binary.{suffix}": (BINARY, "UTF-8", "0x80") for suffix in TEXT_FILES},
    "half.jsonl": ('{"text": "\\ud800", "label": 1}', "Unicode", "document 1"),
    "control.csv": (b"\0\1\2{\7", "text_column", r"'\x00\x01\x02{\x07'"),
    **{f"packed.{suffix}": (gzip.compress(LINES.encode(), mtime=0), "gzip", "gunzip") for suffix in TEXT_FILES},
    "sheet.csv": (b"PK\3\4\x14\0\x86", "zip", "spreadsheet"),
    "packed.parquet": (gzip.compress(PARQUET), "Parquet"),
    **{f"wide.{suffix}": (LINES.encode("utf-16"), "UTF-16", "iconv") for suffix in TEXT_FILES},
    # Another content than the name says, or than documents have.
    "notes.txt": ("a", ".json, .jsonl, .csv, .parquet"),
    "cells.tsv": (CSV, ".json, .jsonl, .csv, .parquet", "save it as .csv"),
    "deep.json": ("[" * 100_000, "cannot read"),
    "number.json": ("3", "line 1", "int"),
    "strings.json": ('["a"]', "entry 1", "str"),
    "table.jsonl": (CSV, "JSON", "line 1", "column 1"),
    "table.parquet": (CSV, "Parquet"),
    "lines.csv": (LINES, "text_column", """'{"text": "document 0"'"""),
    "list.csv": (json.dumps(ROWS), "different names", """' "label": "a"}'""", "twice"),
    **{f"parquet.{suffix}": (PARQUET, "Parquet", ".parquet") for suffix in TEXT_FILES},
    # Columns.
    "semicolons.csv": (CSV.replace(",", ";"), "'text'", "'text;label'", "commas", "';'"),
    "tabs.csv": (CSV.replace(",", "\t"), "'text'", r"'text\tlabel'", "commas", r"'\t'"),
    "prompts.csv": ("prompt,completion,text\na,b,c\n", "label_column", "prompt_column"),
    "wide.jsonl.json": (json.dumps([{f"column {i}": 1 for i in range(99)}]), "text_column", "'column 9'", "89 more"),
    "label.csv": ("text,topic\na,b\n", "label_column", "'label'", "'text', 'topic'"),
    "lacking.parquet": (parquet(TWICE.select([0])), "label_column", "'label'", "'text'"),
    "twice.csv": ("text,text,label\na,b,c\n", "different names", "'text'"),
    "twice.jsonl": ('{"text": "a", "text": "b", "label": 1}', "different names", "'text'"),
    "twice.parquet": (parquet(TWICE), "different names", "'text'", "twice"),
    # Missing texts and labels, and those of another type.
    "int.jsonl": ('{"text": 3, "label": 1}', "text", "document 1", "3 (int)"),
    "float.jsonl": ('{"text": "a", "label": 5.0}', "label", "5.0", "single_label_classification", "regression"),
    "bare.jsonl": ('{"text": "a", "label": 1}\n{"text": "b"}', "label", "document 2", "nothing"),
    "null.jsonl": (LINES + '{"text": null, "label": "a"}', "text", "document 41", "nothing"),
    "null.parquet": (parquet(NO_TEXT), "text", "document 2", "nothing"),
    "unlabelled.csv": (CSV + "some text, \n", "label", "document 41", "empty"),
    "digits.jsonl": (LINES + '{"text": "a", "label": ' + "9" * 5000 + "}", "line 41", "number"),
    # Too few classes or documents.
    "few.jsonl": (lines(ROWS[:2]), "test split", "2"),
    "same.csv": (CSV.replace(",b", ",a"), "two classes", "got a"),
    "equal.jsonl": (lines([{"text": "x", "label": i % 2} for i in range(40)]), "test split", "40 documents", "1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_data_is_refused_in_one_line(name, write):
    content, *named = BROKEN[name]
    path = write(name, content)
    assert_refused(complaint(train_file=path), *named, path)


@pytest.mark.parametrize(
    ("summary", "got"), [('""', "empty"), ('" "', "empty"), ("null", "nothing"), ("3", "3 (int)")]
)
def test_a_summary_that_is_missing_or_no_text_is_refused(summary, got, write):
    path = write("a.jsonl", '{"text": "a", "gist": "b"}\n{"text": "a", "gist": ' + summary + "}")
    assert_refused(complaint(train_file=path, summary_column="gist"), "summary", "document 2", path, got)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_lacks_is_refused(split, write):
    other = write("other.jsonl", '{"text": "x", "label": "c"}')
    message = complaint(train_file=write("train.jsonl", LINES), **{f"{split}_file": other})
    assert_refused(message, other, "'a', 'b'", "'c'")


def test_a_folder_and_a_name_that_no_file_can_have_are_refused(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert_refused(complaint(train_file=str(tmp_path / "a.csv")), tmp_path / "a.csv", "folder")
    assert_refused(complaint(train_file=f"{'x' * 300}.csv"), f"{'x' * 300}.csv", "too long")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(write):
    path = write("a.csv", CSV)
    Path(path).chmod(0)
    assert_refused(complaint(train_file=path), path, "Permission denied")


# Trained on


@pytest.mark.parametrize("kind", TEXT_FILES)
@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: f"\ufeff{text}",
    lambda text: text.replace("\n", "\n\n") + "\n",
], ids=["CRLF", "BOM", "blank lines"])  # fmt: skip
def test_line_ends_marks_and_blank_lines_change_nothing(kind, change, write):
    data = load(train_file=write(f"a.{kind}", change(FILES[kind])))
    assert sorted(text for split in data.values() for text in split["text"]) == sorted(row["text"] for row in ROWS)


@pytest.mark.parametrize(("kind", "nul"), [("csv", "\0"), ("jsonl", "\\u0000")])
def test_a_nul_character_is_part_of_a_text(kind, nul, write):
    data = load(train_file=write(f"a.{kind}", FILES[kind].replace("document 3", f"document {nul}", 1)))
    assert sum("\0" in text for split in data.values() for text in split["text"]) == 1


@pytest.mark.parametrize("label", ["--5", "9" * 5000, "\u00b2", "-"])
def test_a_label_that_only_looks_like_a_number_is_a_name(label, write):
    rows = [row | {"label": ("1", label)[i % 2]} for i, row in enumerate(ROWS)]
    data = load(train_file=write("a.jsonl", lines(rows)))
    assert sorted(data["train"].features["label"].names) == sorted(["1", label])


@pytest.mark.slow
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
        "1 reach 12 tokens, where longer ones are cut (train 1)"
    )


@pytest.fixture
def printed(capsys):
    """What is printed while these columns of texts, one for each split, become tokens."""

    def encode(*limits, encode=encode_documents, column="text", **texts) -> str:
        splits = DatasetDict({name: Dataset.from_dict({column: rows}) for name, rows in texts.items()})
        capsys.readouterr()
        encode(tiny_tokenizer(), splits, *limits)
        return capsys.readouterr().out

    return encode


def test_a_document_of_a_megabyte_is_read_in_full_and_its_length_printed(printed):
    line = "documents: the longest has 500,002 tokens, which training holds in memory at once; max_tokens cuts\n"
    assert printed(train=["a", "a b " * 250_000]) == line


def test_nothing_is_printed_where_nothing_is_lost_and_only_the_main_process_prints(printed, monkeypatch):
    assert printed(5, train=["a b"]) == ""
    assert printed(5, train=[""]) != ""
    monkeypatch.setenv("RANK", "1")
    assert printed(5, train=[""]) == ""


@pytest.mark.parametrize("start", [None, 2], ids=["complete", "without the start"])
def test_summaries_that_are_cut_are_counted(start, printed):
    texts = {"train": ["a b", "a b c", "a b c d"], "test": ["a"]}
    line = "summaries: 2 reach max_summary_tokens, where longer ones are cut (train 2)\n"
    assert printed(5, start, encode=encode_summaries, column="summary", **texts) == line
