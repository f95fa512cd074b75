"""Columns of labels and of numbers: read from every kind of file, told apart, and refused in one line."""

from decimal import Decimal

import datasets
import pytest
from pyarrow import Table
from refusals import assert_refused
from task_files import complaint, lines, load, parquet

from shtopk.tasks import DataArguments, MultiLabelClassification, Regression, get_task

LISTS = [["sport"], ["law", "money"], [], ["money", "sport", "sport"]]
SETS = [{"text": f"document {i}", "label": LISTS[i % 4]} for i in range(40)]
NUMBERS = [{"text": f"document {i}", "label": i / 4} for i in range(40)]
EVERY = ("train", "validation", "test")


def sets_of(split):
    names = split.features["labels"].feature.names
    return [[names[i] for i in labels] for labels in split["labels"]]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_lists_are_labels_and_numbers_with_a_fraction_are_numbers(kind, write, capsys):
    content = {"jsonl": lines, "json": lines, "parquet": lambda rows: parquet(Table.from_pylist(rows))}[kind]
    for rows, task, target, said in ((SETS, MultiLabelClassification, "labels", "multi_label_classification"),
                                     (NUMBERS, Regression, "value", "regression")):  # fmt: skip
        arguments = {"train_file": write(f"{target}.{kind}", content(rows))}
        data = load(**arguments)
        assert type(get_task(DataArguments(**arguments), data)) is task
        assert {name: len(split) for name, split in data.items()} == {"train": 28, "validation": 4, "test": 8}
        assert f"problem_type {said}" in capsys.readouterr().out
        given = {row["text"]: row["label"] for row in rows}
        for split in data.values():
            answers = sets_of(split) if target == "labels" else split["value"][:]
            for text, answer in zip(split["text"], answers, strict=True):
                assert answer == (list(dict.fromkeys(given[text])) if target == "labels" else given[text])


def test_decimals_of_parquet_with_a_fraction_are_numbers(write):
    rows = [{"text": f"document {i}", "label": Decimal(i) / 4} for i in range(40)]
    arguments = {"train_file": write("a.parquet", parquet(Table.from_pylist(rows)))}
    data = load(**arguments)
    assert type(get_task(DataArguments(**arguments), data)) is Regression
    assert 0.25 in [answer for split in data.values() for answer in split["value"]]


def test_labels_that_stand_in_one_text_are_separated(write):
    path = write(
        "a.csv", "text,topics\n" + "".join(f"a {i},{('law|money ', '', ' money')[i % 3]}\n" for i in range(30))
    )
    data = load(train_file=path, label_column="topics", label_separator="|")
    assert data["train"].features["labels"].feature.names == ["law", "money"]
    assert {tuple(labels) for split in data.values() for labels in sets_of(split)} == {
        ("law", "money"),
        (),
        ("money",),
    }


def test_numbers_in_csv_are_numbers_where_that_is_asked_for(write):
    path = write("a.csv", "text,label\n" + "".join(f"a {i}, {i / 8} \n" for i in range(30)))
    data = load(train_file=path, problem_type="regression")
    assert sorted(value for split in data.values() for value in split["value"]) == [i / 8 for i in range(30)]
    message = complaint(train_file=path)
    assert_refused(message, path, "a test split", "problem_type regression")


@pytest.mark.parametrize(
    ("kind", "content"), [("jsonl", lines), ("parquet", lambda rows: parquet(Table.from_pylist(rows)))]
)
def test_whole_numbers_with_a_point_are_classes_where_classes_are_asked_for(kind, content, write):
    rows = [{"text": f"a {i}", "label": float(i % 2)} for i in range(40)]
    path = write(f"a.{kind}", content(rows))
    data = load(train_file=path, problem_type="single_label_classification")
    assert data["train"].features["label"].names == ["0", "1"]
    assert_refused(complaint(train_file=path), "label", "document 1", "0.0 (float)", path)


@pytest.mark.parametrize(("rows", "given", "named"), [
    ([0.5, "high"], {}, ["number", "document 2", "'high' (str)"]),
    ([0.5, float("nan")], {}, ["number", "document 2", "nan (float)"]),
    ([0.5, None], {}, ["number", "document 2", "nothing"]),
    ([0.5, True], {}, ["number", "document 2", "True (bool)"]),
    (["1", "inf"], {"problem_type": "regression"}, ["number", "document 2", "'inf' (str)"]),
    (["1", "1_000"], {"problem_type": "regression"}, ["number", "document 2", "'1_000' (str)"]),
    (["3,5", "1"], {"problem_type": "regression"}, ["number", "document 1", "'3,5' (str)"]),
    ([1, 2.5], {"problem_type": "single_label_classification"}, ["label", "document 2", "2.5 (float)", "regression"]),
    ([["a"], "b"], {}, ["list of labels", "document 2", "'b' (str)", "label_separator"]),
    ([["a"], None], {}, ["list of labels", "document 2", "nothing", "empty list"]),
    ([["a"], ["b", None]], {}, ["label", "document 2", "nothing"]),
    ([["a"], ["b", "nan"]], {}, ["label", "document 2", "'nan' (str)"]),
    ([[0.5], ["b"]], {}, ["label", "document 1", "0.5 (float)"]),
    ([["a"], ["b"]], {"problem_type": "single_label_classification"}, ["label", "multi_label_classification"]),
    ([[], []], {}, ["labels", "none"]),
])  # fmt: skip
def test_bad_answers_are_refused_in_one_line(rows, given, named, write):
    path = write("a.jsonl", lines({"text": f"a {i}", "label": label} for i, label in enumerate(rows)))
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), path)
    assert_refused(complaint(**files, **given), *named, path)


@pytest.mark.parametrize(("given", "named"), [
    ({"problem_type": "regression"}, ["task", "files", "hub", "problem_type", "'bbc'"]),
    ({"train_file": "a.csv", "problem_type": "regression", "label_separator": ";"}, ["label_separator"]),
    ({"train_file": "a.csv", "problem_type": "regression", "summary_column": "gist"}, ["problem_type", "'gist'"]),
    ({"train_file": "a.csv", "label_separator": ";", "summary_column": "gist"}, ["problem_type", "'gist'"]),
    ({"train_file": "a.csv", "problem_type": "regression", "drop_unknown_labels": True}, ["drop_unknown_labels"]),
])  # fmt: skip
def test_fields_that_do_not_fit_the_answers_are_refused(given, named):
    assert_refused(complaint(**given), *named)


@pytest.mark.parametrize("several", [False, True])
def test_documents_with_a_label_that_training_lacks_are_refused_or_left_out_when_told_to(several, write, capsys):
    def rows(name, *labels):
        return [{"text": f"{name} {i}", "label": [label, "a"] if several else label} for i, label in enumerate(labels)]

    given = {"train_file": write("train.jsonl", lines(rows("train", "a", "b"))),
             "validation_file": write("validation.jsonl", lines(rows("validation", "a", "c", "b"))),
             "test_file": write("test.jsonl", lines(rows("test", "d", "b")))}  # fmt: skip
    assert_refused(complaint(**given), "'a', 'b'", "'c'", given["validation_file"], "drop_unknown_labels")
    data = load(**given, drop_unknown_labels=True)
    assert [data[name]["text"][:] for name in EVERY] == [
        ["train 0", "train 1"], ["validation 0", "validation 2"], ["test 1"]
    ]  # fmt: skip
    said = capsys.readouterr().out
    for name in ("validation", "test"):
        assert f"labels: 1 documents of {given[f'{name}_file']} left out" in said


def test_the_rarest_label_has_documents_in_training(write):
    rows = [{"text": f"document {i}", "label": ["often"] + ["rare"] * (i < 3)} for i in range(100)]
    data = load(train_file=write("a.jsonl", lines(rows)))
    assert sum("rare" in labels for labels in sets_of(data["train"])) == 2
    assert sum("rare" in labels for labels in sets_of(data["test"])) == 1


def test_lists_of_classes_of_the_hub_keep_their_names(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.List(datasets.ClassLabel(names=["z", "y", "x"]))
    )
    rows = {"text": [f"text {i}" for i in range(20)], "label": [[0], [2, 0]] * 10}
    part = datasets.Dataset.from_dict(rows, features)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: datasets.DatasetDict(train=part))
    data = load(dataset_name="any/name")
    assert data["train"].features["labels"].feature.names == ["z", "x"]
    assert {tuple(labels) for split in data.values() for labels in sets_of(split)} == {("z",), ("x", "z")}
    arguments = DataArguments(dataset_name="any/name", problem_type="multi_label_classification")
    alone = get_task(arguments).load_split(arguments, "test")
    assert set(map(tuple, alone["labels"])) == {("z",), ("x", "z")}
