"""Columns and labels: several texts joined, pairs, spaces around labels, and cells that hold none."""

import datasets
import pytest
from refusals import assert_refused
from task_files import complaint, lines, load

from shtopk.tasks import DataArguments, get_task
from shtopk.tasks.columns import Columns

WORDS = ("sport", "money")


def rows(**more):
    return [{"text": f"document {i}", "label": WORDS[i % 2], **{k: v(i) for k, v in more.items()}} for i in range(40)]


# Labels


def spaced(i):
    return WORDS[i % 2] + " " * (i % 4 == 0) + "\t" * (i % 4 == 1)


def test_labels_that_differ_by_surrounding_spaces_are_one_class_and_a_line_says_so(write, capsys):
    path = write("spaces.jsonl", lines(rows(label=spaced)))
    for _ in range(2):  # read, and from the cache
        data = load(train_file=path)
        assert data["train"].features["label"].names == ["money", "sport"]
        line = f"labels: 20 in {path} have spaces around them, which do not count\n"
        assert capsys.readouterr().out == line
    assert all((row["label"] == 1) == (int(row["text"].split()[1]) % 2 == 0) for row in data["train"])
    load(train_file=write("none.jsonl", lines(rows())))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("more", [{}, {"problem_type": "multi_label_classification"}])
def test_ones_for_labels_that_hold_and_zeros_for_others_are_no_names(more, write):
    path = write("ones.jsonl", lines(rows(label=lambda i: [i % 2, 0, 1])))
    with pytest.raises(ValueError, match=r"the labels that hold in each row of 'label', got .* as \[0, 0, 1\]"):
        load(train_file=path, **more)


def test_labels_of_the_hub_lose_their_spaces_too(monkeypatch):
    kind = datasets.ClassLabel(names=["spam", "spam ", "ham"])
    features = datasets.Features(text=datasets.Value("string"), label=kind)
    split = datasets.Dataset.from_dict({"text": [f"t {i}" for i in range(30)], "label": [0, 1, 2] * 10}, features)
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: datasets.DatasetDict(train=split))
    assert load(dataset_name="any/name")["train"].features["label"].names == ["spam", "ham"]


@pytest.mark.parametrize("value", ['"nan"', '"NaN"', '"None"', '" None "', "NaN", "null", '""', '" "'])
def test_a_label_that_stands_for_none_is_missing(value, write):
    path = write("a.jsonl", lines(rows()) + '{"text": "a", "label": ' + value + "}")
    assert_refused(complaint(train_file=path), "label", "document 41", path)


@pytest.mark.parametrize("label", ["none", "NA", "n/a", "nano"])
def test_other_words_are_classes(label, write):
    data = load(train_file=write("a.jsonl", lines(rows(label=lambda i: ("sport", label)[i % 2]))))
    assert set(data["train"].features["label"].names) == {"sport", label}


def test_a_hub_split_whose_labels_all_stand_for_none_is_drawn_anew_and_that_is_told(monkeypatch, capsys):
    def split(labels):
        return datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(40)], "label": labels})

    found = datasets.DatasetDict(train=split(["a", "b"] * 20), test=split(["nan"] * 40))
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: found)
    assert len(load(dataset_name="any/name")["test"]) == 8
    assert "any/name (test): has no answers, so some documents of train are taken instead" in capsys.readouterr().out


# Columns


def test_the_texts_of_several_columns_are_joined_in_the_order_given(write):
    content = lines(rows(title=lambda i: f"title {i}", more=lambda i: None if i % 2 else "more"))
    given = {"text_column": "title, text,more", "text_separator": " | "}
    data = load(train_file=write("a.jsonl", content), **given)
    for split in data.values():
        for row in split:
            i = row["text"].split()[1]
            assert row["text"] == f"title {i} | document {i}" + " | more" * (row["label"] == 1)
    assert_refused(complaint(train_file=write("b.jsonl", content), text_column="title,body"), "'body'", "text_column")


def test_an_empty_cell_is_joined_as_an_empty_text_and_a_missing_value_is_left_out(write):
    cells = write("a.csv", "title,text,label\n" + "".join(f",document {i},{WORDS[i % 2]}\n" for i in range(40)))
    for path, start in ((cells, " | document"), (write("a.jsonl", lines(rows(title=lambda i: None))), "document")):
        data = load(train_file=path, text_column="title,text", text_separator=" | ")
        assert all(text.startswith(start) for text in data["train"]["text"])


def test_the_rows_after_one_that_lacks_a_column_of_several_are_read(write):
    with_titles = rows(title=lambda i: f"title {i}")
    del with_titles[0]["title"]
    path = write("a.jsonl", lines(with_titles))
    arguments = DataArguments(test_file=path, text_column="title,text")
    split = get_task(arguments).load_split(arguments, "test")
    assert len(split) == len(with_titles) and split["text"][:2] == ["document 0", "title 1 document 1"]


def test_a_second_text_stands_beside_the_first(write):
    path = write("a.jsonl", lines(rows(other=lambda i: f"other {i}")))
    data = load(train_file=path, text_pair_column="other")
    assert data["train"].column_names == ["text", "text_pair", "label"]
    assert all(row["text"].replace("document", "other") == row["text_pair"] for row in data["test"])
    arguments = DataArguments(test_file=path, text_pair_column="other", max_eval_samples=3)
    assert get_task(arguments).load_split(arguments, "test").column_names == ["text", "text_pair", "label"]


def test_equal_first_texts_may_stand_in_two_splits_but_equal_pairs_may_not(write):
    pairs = [{"text": "one", "other": f"other {i // 4}", "label": WORDS[i // 4 % 2]} for i in range(160)]
    data = load(train_file=write("a.jsonl", lines(pairs)), text_pair_column="other")
    train, validation, test = ({row["text_pair"] for row in split} for split in data.values())
    assert len(test) == 8 and not test & train and not test & validation


def test_pairs_that_differ_in_white_space_alone_stay_in_one_split(write):
    pairs = [{"text": f"one {i}" + " " * again, "other": " " * again + f"two {i}", "label": WORDS[i % 2]}
             for i in range(80) for again in range(2)]  # fmt: skip
    data = load(train_file=write("a.jsonl", lines(pairs)), text_pair_column="other")
    train, validation, test = ({row["text"].strip() for row in split} for split in data.values())
    assert test and not test & train and not test & validation


@pytest.mark.parametrize(("given", "named"), [
    ({"text_pair_column": "none"}, ["'none'", "--text_pair_column"]),
    ({"text_pair_column": "text"}, ["text_column", "text_pair_column", "'text'"]),
    ({"text_pair_column": "label"}, ["text_pair_column", "label_column", "'label'"]),
    ({"text_column": "text,text"}, ["text_column", "'text' twice"]),
    ({"text_pair_column": "n"}, ["text as n", "document 1", "0 (int)"]),
    ({"text_column": "text,n"}, ["text as n", "document 1", "0 (int)"]),
    ({"text_column": "empty,void"}, ["document 1", "nothing in empty, void"]),
])  # fmt: skip
def test_impossible_columns_are_refused_in_one_line(given, named, write):
    path = write("a.jsonl", lines(rows(n=lambda i: i, empty=lambda i: None, void=lambda i: None)))
    assert_refused(complaint(train_file=path, **given), *named)


def test_a_row_that_lacks_a_column_is_named_and_one_that_all_lack_too(write):
    some = write("some.jsonl", '{"label": "a"}\n{"text": "b", "label": "b"}\n')
    assert_refused(complaint(train_file=some), "text", "document 1", "nothing")
    assert_refused(complaint(train_file=some, text_column="body"), "'body'", "'label', 'text'")


def test_what_read_returns_has_the_names_that_it_promises():
    columns = Columns(("title", "body"), "\n", "other", "topic", keep=("id",))
    row = columns.read({"title": "a", "body": "b", "other": "c", "topic": 3, "id": 1}, "row 1")
    assert row == {"text": "a\nb", "text_pair": "c", "label": "3"} and tuple(row) == columns.names
