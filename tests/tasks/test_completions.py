"""Prompts and completions: found in files, refused where one is missing, and cut where they are least needed."""

import re

import pyarrow
import pytest
from refusals import assert_refused
from task_files import complaint, lines, load, parquet
from tiny import WORDS, tiny_tokenizer, tiny_writer

from shtopk.integrations.reading import read_completions, read_prompts
from shtopk.tasks import DataArguments, completion_metrics, get_task
from shtopk.tasks.files import with_completions_found
from shtopk.tasks.names import COMPLETION_METRICS
from shtopk.tasks.recall import generate

ROWS = [{"prompt": f"a b c {word}", "completion": word} for word in WORDS[4:24]]


def ids(text):
    return [WORDS.index(word) for word in text.split()]


@pytest.fixture
def written(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        content = lines(rows) if name.endswith(".jsonl") else rows
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(("name", "content"), [
    ("rows.jsonl", ROWS),
    ("rows.csv", "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS)),
    ("rows.parquet", parquet(pyarrow.Table.from_pylist(ROWS))),
], ids=["jsonl", "csv", "parquet"])  # fmt: skip
def test_columns_of_the_usual_names_are_found(written, name, content):
    found = with_completions_found(DataArguments(train_file=written(content, name)))
    assert (found.prompt_column, found.completion_column, found.answer) == ("prompt", "completion", "completion")
    data = get_task(found).load(found)
    assert sorted(row["text"] for split in data.values() for row in split) == sorted(row["prompt"] for row in ROWS)


@pytest.mark.parametrize("given", [
    {"train_file": "no.jsonl"}, {"summary_column": "completion"}, {"text_column": "prompt"}, {"task": "bbc"},
], ids=str)  # fmt: skip
def test_they_are_not_looked_for_where_others_are_named(written, given):
    arguments = DataArguments(**{"train_file": written(ROWS)} | given)
    assert with_completions_found(arguments) == arguments


def test_texts_with_labels_stay_what_they_were(written):
    path = written([row | {"text": "a", "label": "b"} for row in ROWS])
    assert with_completions_found(DataArguments(train_file=path)).answer is None


def test_one_name_brings_the_usual_other_one(written):
    path = written([{"question": row["prompt"], "completion": row["completion"]} for row in ROWS])
    assert load(train_file=path, prompt_column="question")["test"]["completion"]
    assert DataArguments(completion_column="answer").prompt_column == "prompt"


MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(("row", "named"), [
    ({"prompt": "a"}, ["completion", "document 21"]),
    ({"prompt": "a", "completion": " "}, ["completion", "document 21", "empty"]),
    ({"prompt": "a", "completion": 7}, ["completion", "document 21", "7"]),
    ({"prompt": "", "completion": "b"}, ["prompt", "document 21", "empty"]),
    ({"prompt": None, "completion": "b"}, ["prompt", "document 21", "nothing"]),
    ({"prompt": MESSAGES, "completion": MESSAGES}, ["prompt", "document 21", "apply_chat_template"]),
    ({"prompt": "a", "completion": MESSAGES}, ["completion", "document 21", "apply_chat_template"]),
], ids=str)  # fmt: skip
def test_a_row_that_nothing_can_be_learnt_from_is_refused(written, row, named):
    assert_refused(complaint(train_file=written([*ROWS, row]), prompt_column="prompt"), *named)


@pytest.mark.parametrize(("given", "named"), [
    ({"summary_column": "gist"}, ["summary_column", "completion_column"]),
    ({"problem_type": "regression"}, ["problem_type", "completion_column"]),
    ({"label_separator": ";"}, ["problem_type", "completion_column"]),
    ({"text_pair_column": "other"}, ["text_pair_column", "completion_column"]),
    ({"text_column": "body"}, ["text_column", "completion_column"]),
    ({"completion_column": "prompt"}, ["prompt_column", "completion_column", "'prompt'"]),
    ({"prompt_column": "question"}, ["'question'", "prompt_column"]),
    ({"drop_unknown_labels": True}, ["drop_unknown_labels", "completions"]),
    ({"max_completion_tokens": 0}, ["max_completion_tokens", "0"]),
    ({"task": "recall"}, ["task", "completion_column"]),
], ids=str)  # fmt: skip
def test_what_does_not_go_with_completions_is_refused(written, given, named):
    path = {"train_file": written(ROWS)} if "task" not in given else {}
    assert_refused(complaint(**path | {"completion_column": "completion"} | given), *named)


@pytest.mark.parametrize("tokenizer", [tiny_writer(), tiny_tokenizer()], ids=["begins", "begins and ends"])
def test_of_a_long_prompt_the_end_is_kept_and_nothing_stands_behind_it(tokenizer):
    prompts = read_prompts(tokenizer, ["a b c d e", "f", ""], max_tokens=4)
    assert prompts == [ids("[CLS] c d e"), ids("[CLS] f"), ids("[CLS]")]
    assert read_prompts(tokenizer, ["a b"]) == [ids("[CLS] a b")]
    with pytest.raises(ValueError) as caught:
        read_prompts(tokenizer, ["a"], max_tokens=1)
    assert_refused(str(caught.value), "max_tokens", "1")


def test_a_completion_ends_unless_it_is_cut():
    found = read_completions(tiny_writer(), ["a b", "a b c d", "a [SEP]"], max_tokens=3)
    assert found == [ids("a b [SEP]"), ids("a b c"), ids("a [SEP]")]


def test_what_is_cut_is_counted(written, capsys):
    arguments = DataArguments(train_file=written(ROWS), prompt_column="prompt", max_tokens=3, max_completion_tokens=1)
    task = get_task(arguments)
    encoded = task.encode(tiny_writer(), task.load(arguments), arguments)
    assert set(encoded["train"].column_names) == {"input_ids", "attention_mask", "labels"}
    assert all(row["input_ids"][:2] == ids("[CLS] c") and len(row["labels"]) == 1 for row in encoded["train"])
    said = capsys.readouterr().out
    assert "prompts: 20 reach 3 tokens" in said and "completions: 20 reach max_completion_tokens" in said


def test_whitespace_is_no_mistake_and_all_else_is():
    figures = completion_metrics([" one  two", "three", ""], ["one two", "Three", "four"])
    assert figures.keys() == set(COMPLETION_METRICS)
    assert figures["exact_match"] == pytest.approx(1 / 3)
    assert figures["exact_match_low"] <= 1 / 3 <= figures["exact_match_high"]
    assert figures["rouge1"] == pytest.approx(2 / 3)


def test_the_usual_completion_is_what_needs_no_model(written):
    data = load(train_file=written([*ROWS, *[{"prompt": f"{i}", "completion": "yes"} for i in range(9)]]),
                prompt_column="prompt")  # fmt: skip
    task = get_task(DataArguments(task="files", completion_column="completion"))
    assert task.baselines(data) == {"most_frequent": ["yes"] * len(data["test"])}
    assert task.baselines({"test": data["test"]}) == {}


def test_recall_asks_for_what_stands_in_the_prompt_once():
    data = generate({"train": 20, "test": 20}, seed=3)
    for row in data["test"]:
        (asked,) = re.findall(r"What is the number of (.*?)\?", row["text"])
        (number,) = re.findall(rf"The number of {asked} is (\d+)\.", row["text"])
        assert row["completion"] == f" {number}"
    assert data["train"][:] == generate({"train": 20, "test": 20}, seed=3)["train"][:]
    assert len(set(data["test"]["completion"])) == 20
