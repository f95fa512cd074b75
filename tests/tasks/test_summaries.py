"""Summarization tasks: files and hub with a column of summaries, targets of a decoder, the cache, samples to read."""

import json
from pathlib import Path
from unittest.mock import Mock

import datasets
import pytest
from refusals import assert_refused
from task_files import complaint, lines, load
from tiny import tiny_tokenizer

from shtopk.tasks import Summarization, write_predictions, write_samples
from shtopk.tasks.cache import cached
from shtopk.tasks.preprocess import encode_summaries

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ROWS = [{"body": f"document {i} goal", "gist": f"gist {i}"} for i in range(40)]
COLUMNS = {"text_column": "body", "summary_column": "gist"}


@pytest.fixture
def file(write):
    return write("documents.jsonl", lines(ROWS))


def test_a_file_with_summaries_is_split_without_overlap(file):
    data = load(train_file=file, **COLUMNS)
    assert {name: len(split) for name, split in data.items()} == {"train": 28, "validation": 4, "test": 8}
    assert data["train"].column_names == ["text", "summary"]
    assert len({text for split in data.values() for text in split["text"]}) == 40


@pytest.mark.parametrize(("given", "named"), [
    ({"summary_column": "points"}, ["summary_column", "'points'", "documents.jsonl", "'body', 'gist'"]),
    ({"summary_column": "body"}, ["text_column", "summary_column", "'body'"]),
    ({"task": "bbc"}, ["task", "files, hub", "'bbc'"]),
    ({"max_summary_tokens": 0}, ["max_summary_tokens", "0"]),
])  # fmt: skip
def test_impossible_arguments_are_refused_in_one_line(file, given, named):
    assert_refused(complaint(**{"train_file": file, **COLUMNS, **given}), *named)


def test_a_target_does_not_start_with_what_the_decoder_starts_from():
    data = datasets.DatasetDict(train=datasets.Dataset.from_dict({"summary": ["a b", ""]}))
    tokenizer = tiny_tokenizer()
    assert encode_summaries(tokenizer, data, 9, start=2)["train"]["labels"][:] == [[4, 5, 3], [3]]
    assert encode_summaries(tokenizer, data, 9, start=None)["train"]["labels"][:] == [[2, 4, 5, 3], [2, 3]]
    assert encode_summaries(tokenizer, data, 3, start=2)["train"]["labels"][0] == [4, 3]


def test_a_corpus_is_prepared_once_and_anew_when_its_sources_or_the_code_change(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    read = Mock(side_effect=[datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": [i]})) for i in "123"])
    assert cached("some", "version 1", read)["train"]["text"][:] == ["1"]
    assert cached("some", "version 1", read)["train"]["text"][:] == ["1"]
    assert cached("some", "version 2", read)["train"]["text"][:] == ["2"]
    (tmp_path / "code.py").write_text("other")
    monkeypatch.setattr("shtopk.tasks.cache.__file__", str(tmp_path / "cache.py"))
    assert cached("some", "version 1", read)["train"]["text"][:] == ["3"]


def test_an_interrupted_preparation_leaves_nothing_that_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        cached("some", "1", Mock(side_effect=KeyboardInterrupt))
    assert not list((tmp_path / "shtopk").iterdir())


def test_samples_show_reference_model_and_baselines_of_the_first_documents(tmp_path):
    task = Summarization("some", "Some.", "None.", None, None, leads={"first": lambda text: text.split()[0]})
    rows = {"text": [f"text {i}\nof it " + "word " * 500 for i in range(12)], "summary": ["a\nb"] * 12}
    split = datasets.Dataset.from_dict(rows)
    predictions = [f"answer {i}" for i in range(12)]
    write_samples(tmp_path, split, predictions, task.baselines(datasets.DatasetDict(test=split)))
    write_predictions(tmp_path, rows["text"], predictions, rows["summary"])
    page = (tmp_path / "samples.md").read_text()
    assert page.count("- **reference**: a b\n") == 10
    assert "## Row 9\n\n- **reference**: a b\n- **model**: answer 9\n- **first**: text\n" in page
    assert "## Row 0\n" in page and "answer 10" not in page
    assert len(page) < 10_000  # long documents are cut
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(12))
    text = lines[11].pop("text")
    assert lines[11] == {"row": 11, "prediction": "answer 11", "reference": "a\nb"}
    assert text.startswith("text 11 of it word word") and text.endswith("…") and len(text) <= 100


@pytest.mark.parametrize(("text", "shown"), [
    ("", ""),
    ("  one\n\n two\tthree ", "one two three"),
    ("a" * 100, "a" * 100),
    ("a" * 101, "a" * 99 + "…"),
    (f"{'a' * 98} {'b' * 50}", f"{'a' * 98}…"),
])  # fmt: skip
def test_a_line_of_predictions_has_the_documents_beginning(tmp_path, text, shown):
    write_predictions(tmp_path, [text], ["é"], ["b"], [1 / 3])
    written = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    line = {"row": 0, "text": shown, "prediction": "é", "reference": "b", "probability": 0.333333}
    assert json.loads(written) == line and "é" in written and written.count("\n") == 1


def test_samples_let_no_markup_through(tmp_path):
    split = datasets.Dataset.from_dict({"text": ["<script>1</script>\n<b>"], "summary": ["<i>"]})
    write_samples(tmp_path, split, ["<img src=x>"], {"first": ["<u>"]})
    page = (tmp_path / "samples.md").read_text()
    assert "<" not in page and page.count("&lt;") == 6


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_possible(config, tmp_path):
    from shtopk.training.command_line import parse

    words = ["--config", str(config), "--output_dir", str(tmp_path / "run")]
    if config.stem.startswith("rfc"):
        for kind in ("json", "txt"):
            (tmp_path / f"rfc1.{kind}").write_text("{}")
        words += ["--rfc_folder", str(tmp_path)]
    if config.stem in ("long-qa", "mbart", "multi-label", "rare-class", "regression"):  # of files of one's own
        (tmp_path / "articles.jsonl").write_text("{}")
        words += ["--train_file", str(tmp_path / "articles.jsonl")]
    parse(words)
