"""Data is prepared once, held on disk, and prepared anew where anything changed that it depends on."""

import os
import time
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import datasets
import pytest
from refusals import assert_refused
from task_files import ROWS, complaint, lines, load
from tiny import tiny_tokenizer

from shtopk.integrations.reading import Reading
from shtopk.tasks import DataArguments, get_task, table
from shtopk.tasks.assemble import to_table
from shtopk.tasks.cache import KEPT, cached
from shtopk.tasks.preprocess import encode_documents
from shtopk.training.provenance import commit_of, hash_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shtopk"


def never(*given, **more):
    raise AssertionError("it was done again")


def test_a_file_is_read_once_and_again_when_it_or_what_is_asked_of_it_changes(write, monkeypatch):
    path = write("a.jsonl", lines(ROWS))
    read = Mock(side_effect=to_table)
    monkeypatch.setattr("shtopk.tasks.files.to_table", read)
    first = load(train_file=path)
    assert load(train_file=path)["test"].to_list() == first["test"].to_list() and read.call_count == 1
    for number, given in enumerate(({"data_seed": 1}, {"summary_column": "label"}, {"text_column": "text,label",
                                    "label_column": "n"}), 2):  # fmt: skip
        write("a.jsonl", lines([row | {"n": i % 2} for i, row in enumerate(ROWS)]))
        load(train_file=path, **given)
        assert read.call_count == number


def test_documents_become_tokens_once_for_a_tokenizer_and_what_is_asked_of_it(write, monkeypatch):
    data, tokenizer = load(train_file=write("a.jsonl", lines(ROWS))), tiny_tokenizer()
    first = encode_documents(tokenizer, data, 4)
    tokenizer(["a b c"], truncation=True, max_length=3, padding="max_length")  # which changes its hash
    changed = tiny_tokenizer()
    changed.add_tokens(["document"])
    monkeypatch.setattr("shtopk.tasks.preprocess.read_texts", never)
    for asked in (tokenizer, tiny_tokenizer()):
        assert encode_documents(asked, data, 4)["test"]["input_ids"][:] == first["test"]["input_ids"][:]
    for other in ((tokenizer, 3), (tokenizer, 4, Reading("a ")), (tokenizer, 4, Reading(window=9)), (changed, 4)):
        with pytest.raises(AssertionError, match="done again"):
            encode_documents(other[0], data, *other[1:])


def test_several_processes_make_the_same_tokens(write):
    data = load(train_file=write("a.jsonl", lines(ROWS)))
    alone = load(train_file=write("b.jsonl", lines(ROWS)))
    one, other = (encode_documents(tiny_tokenizer(), one, None, num_proc=n) for one, n in ((data, 2), (alone, 1)))
    assert all(one[name].to_list() == other[name].to_list() for name in data)


def test_texts_are_not_held_in_memory(write, monkeypatch):
    """Python's own memory stays far below the text, which is 2 MB."""
    monkeypatch.setattr(table, "CHARACTERS", 2**15)
    path = Path(write("a.jsonl", ""))
    with path.open("w") as file:
        for i in range(1000):
            file.write(lines([{"text": f"{i} {'a b c d ' * 250}", "label": "ab"[i % 2]}]))
    arguments = DataArguments(train_file=str(path), max_tokens=16)
    task = get_task(arguments)
    tracemalloc.start()
    data = task.load(arguments)
    hash_of(data["train"], "label")
    task.encode(tiny_tokenizer(), data, arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6, f"{peak:,} bytes"


def test_a_hash_is_remembered_beside_its_split(write, monkeypatch):
    split = load(train_file=write("a.jsonl", lines(ROWS)))["train"]
    found = hash_of(split, "label")
    in_memory = datasets.Dataset.from_dict(split.to_dict(), split.features)
    assert hash_of(in_memory, "label") == found != hash_of(split.select(range(3)), "label")
    monkeypatch.setattr("shtopk.training.provenance.each", never)
    assert hash_of(split, "label") == found


def read(folder):
    return datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))


def test_what_another_process_renames_meanwhile_is_left_alone(cache):
    cache.mkdir(parents=True)
    (cache / ".file-1").symlink_to(cache / "renamed")  # is listed, and not there when it is looked at
    assert cached("new", "", read)["train"]["text"][:] == ["a"]


def test_what_nobody_used_for_long_is_removed_and_what_was_used_stays(cache):
    for name in ("old", "used"):
        cached(name, "", read)
        (folder,) = cache.glob(f"{name}-*")
        os.utime(folder, (time.time() - KEPT - 9,) * 2)
    cached("used", "", read)
    cached("new", "", read)
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["new", "used"]


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(write, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", write("file", "") + "/cache")
    assert_refused(complaint(train_file=write("a.jsonl", lines(ROWS))), "HF_DATASETS_CACHE", tmp_path / "file")


def test_a_revision_of_a_data_set_is_pinned_and_its_commit_known(monkeypatch):
    commit = "0123456789abcdef" * 2 + "01234567"
    split = datasets.Dataset.from_list(ROWS)
    split.info.download_checksums = {f"hf://datasets/any/name@{commit}/train.jsonl": {"num_bytes": 1}}
    asked = Mock(return_value=datasets.DatasetDict(train=split))
    monkeypatch.setattr("datasets.load_dataset", asked)
    data = load(dataset_name="any/name", dataset_revision="v1")
    assert asked.call_args.kwargs == {"revision": "v1"}
    assert commit_of(data["train"]) == commit_of(data["test"]) == commit
    assert commit_of(split.remove_columns("label")) == commit and commit_of(datasets.Dataset.from_list(ROWS)) is None
