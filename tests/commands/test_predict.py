"""`shtopk predict`: a line out for each line in, and nothing lost, whatever comes in between."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from answering import answers, classifier, documents, save
from tiny import BART, BERT, SPECIAL
from transformers import BartConfig, BertConfig, BertForSequenceClassification, BertModel

from shtopk.commands import main
from shtopk.models import (
    TopKPoolingForConditionalGeneration,
    TopKPoolingSeq2SeqConfig,
    load_checkpoint,
    predict,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint's folder, to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def test_each_line_in_has_its_line_out_with_the_columns_to_keep(shtopk, checkpoint, rows, out):
    given = documents(50)
    assert shtopk("predict", checkpoint, rows(given), "--output", out, "--keep", "id,url", "--batch_size", 4) == ""
    found = answers(out)
    expected = list(predict(*load_checkpoint(checkpoint), [row["text"] for row in given]))
    assert len({answer.label for answer in expected}) == 2
    assert [(line["id"], line["url"]) for line in found] == [(row["id"], row["url"]) for row in given]
    assert [line["prediction"] for line in found] == [answer.label for answer in expected]
    assert [line["probability"] for line in found] == pytest.approx([one.probability for one in expected], abs=1e-5)
    assert all(line.keys() == {"id", "url", "prediction", "probability"} for line in found)


def test_probabilities_and_kept_tokens_are_given_on_request(shtopk, checkpoint, write, out):
    shtopk(
        "predict", checkpoint, write("a.txt", "a b c d e f\n"), "--output", out, "--probabilities", "--kept", "true"
    )
    (line,) = answers(out)
    assert list(line["probabilities"]) == ["sport", "law"]
    assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert len(line["kept"]) == 4
    for token in line["kept"]:
        assert token.keys() == {"token", "start", "end", "weight"}
        assert token["token"] in ("[CLS]", "[SEP]", "a b c d e f"[token["start"] : token["end"]])


def test_probabilities_of_a_model_without_classes_are_refused(refused, copy, write):
    config = json.loads((copy / "config.json").read_text()) | {"problem_type": "regression"}
    (copy / "config.json").write_text(json.dumps(config))
    said = refused("predict", copy, write("a.txt", "a b\n"), "--probabilities")
    assert "got a model of regression; leave them out" in said


def test_several_files_of_several_kinds_are_answered_one_after_the_other(shtopk, checkpoint, rows, write, out):
    files = [write("a.txt", "a\n\n\nb"), write("b.csv", "id,text\n1,c\n"), rows(documents(3))]
    shtopk("predict", checkpoint, *files, "--output", out)
    assert len(answers(out)) == 8


def test_a_file_of_empty_lines_has_a_line_for_each(shtopk, checkpoint, write, out):
    shtopk("predict", checkpoint, write("a.txt", "\n\n\n"), "--output", out)
    assert len(answers(out)) == 3


def test_standard_input_holds_lines_of_text_or_json_lines_on_request(
    shtopk, checkpoint, rows, write, out, monkeypatch
):
    with open(write("a.txt", '{"text": "a"}\n\nb')) as file:
        monkeypatch.setattr(sys, "stdin", file)
        shtopk("predict", checkpoint, "-", "--output", out)
    assert len(answers(out)) == 3
    with open(rows(documents(3))) as file:
        monkeypatch.setattr(sys, "stdin", file)
        shtopk("predict", checkpoint, "-", "--output", out, "--overwrite", "--format", "jsonl", "--keep", "id")
    assert [line["id"] for line in answers(out)] == [0, 1, 2]


@pytest.mark.parametrize(("content", "words", "told"), [
    ('{"text": "a"}\n{"text": "b"}\n', [], True),
    ('\ufeff{"text": "a"}\n', [], True),
    ('{"text": "{}"}\n', ["--format", "jsonl"], False),
    ("a\n{}\n", [], False),
    ('{"text": "a"\n', [], False),
    ("5\n", [], False),
    ("[" * 99_999 + "\n", [], False),
])  # fmt: skip
def test_json_lines_that_are_read_as_text_are_answered_and_told_once(
    checkpoint, write, out, monkeypatch, capsys, content, words, told
):
    with open(write("a", content.encode())) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["predict", str(checkpoint), "-", "--output", str(out), *words]) == 0
    assert len(answers(out)) == content.count("\n")
    hint = "line 1 of standard input is a JSON object, and is answered as text; for JSON lines give --format jsonl"
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shtopk")]
    assert said == ([f"shtopk predict: {hint}"] if told else [])


def test_summaries_are_answers_too(shtopk, write, tmp_path, out):
    config = TopKPoolingSeq2SeqConfig(backbone=BartConfig(**BART | {"init_std": 0.5}), k=4, **SPECIAL)
    model = TopKPoolingForConditionalGeneration(config)
    model.set_generation(max_new_tokens=5)
    folder = save(model, tmp_path / "summarizer")
    shtopk("predict", folder, write("a.txt", "a b c\nx y\n"), "--output", out, "--kept")
    expected = list(predict(*load_checkpoint(folder), ["a b c", "x y"]))
    assert [line["prediction"] for line in answers(out)] == [answer.summary for answer in expected]
    assert all(line.keys() == {"prediction", "kept"} for line in answers(out))


def test_texts_are_read_as_in_training_unless_said_otherwise(shtopk, refused, copy, rows, out):
    (copy / "arguments.yaml").write_text("text_column: body\nmax_tokens: 4\n")
    source = rows([{"body": "a b c d e f g", "text": "x"}])
    for more, text in (([], "a b"), (["--max_tokens", "5"], "a b c"), (["--text_column", "text"], "x")):
        shtopk("predict", copy, source, "--output", out, "--overwrite", *more)
        (expected,) = predict(*load_checkpoint(copy), [text])
        assert answers(out)[0]["probability"] == pytest.approx(expected.probability, abs=1e-5)
    (copy / "arguments.yaml").write_text("max_tokens: many\n")
    assert "arguments.yaml" in refused("predict", copy, source)


@pytest.mark.parametrize("separator", ["", "\n"], ids=repr)
def test_texts_of_several_columns_are_joined_as_in_training(shtopk, copy, rows, out, separator):
    (copy / "arguments.yaml").write_text(f"text_column: title,body\ntext_separator: {json.dumps(separator)}\n")
    shtopk("predict", copy, rows([{"title": "go", "body": "al b"}]), "--output", out, "--kept")
    text = f"go{separator}al b"
    (expected,) = predict(*load_checkpoint(copy), [text], kept=True)
    (line,) = answers(out)
    assert line["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert [(token["token"], token["end"]) for token in line["kept"]] == [one[0:3:2] for one in expected.kept]


def test_a_model_of_the_task_pairs_reads_pairs(shtopk, refused, copy, rows, write, out):
    (copy / "arguments.yaml").write_text("task: pairs\n")
    shtopk("predict", copy, rows([{"text": "a b", "text_pair": "c d"}]), "--output", out)
    (expected,) = predict(*load_checkpoint(copy), [("a b", "c d")])
    assert answers(out)[0]["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert "no column 'text_pair'" in refused("predict", copy, write("a.txt", "a b\n"))


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def half_the_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_tokenizer(folder):
    for path in folder.glob("token*"):
        path.unlink()


def of_something_else(folder):
    save(BertModel(BertConfig(**BERT)), folder)


@pytest.mark.parametrize(("damage", "message"), [
    (without_weights, "model.safetensors"), (half_the_weights, "cannot load the checkpoint"),
    (without_tokenizer, "expected a tokenizer beside the model"), (of_something_else, "got BertModel"),
    (shutil.rmtree, "expected a folder with a checkpoint, found none"),
])  # fmt: skip
def test_half_a_checkpoint_and_one_of_something_else_are_refused(refused, copy, write, out, damage, message):
    damage(copy)
    assert message in refused("predict", copy, write("a.txt", "a\n"), "--output", out)
    assert not out.exists()


REFUSED = {
    "an empty file": ("a.txt", "", [], "got an empty file"),
    "a missing column": ("a.jsonl", '{"body": "a"}', [], "expected a column 'text' in line 1 of"),
    "a missing column to keep": ("a.jsonl", '{"text": "a"}', ["--keep", "id"], "'id'"),
    "a column to keep that lines have anyway": ("a.jsonl", '{"text": "a"}', ["--keep", "kept"], "got kept"),
    "a column of plain text": ("a.txt", "a", ["--keep", "id"], "lines of text"),
    "an unknown kind": ("a.doc", "a", [], "expected a file ending in .txt"),
    "no batch": ("a.txt", "a", ["--batch_size", "0"], "batch_size >= 1"),
    "no tokens": ("a.txt", "a", ["--max_tokens", "0"], "max_tokens >= 1"),
    "no room beside special tokens": ("a.txt", "a", ["--max_tokens", "2"], "max_tokens > 2"),
    "both": ("a.txt", "a", ["--output", "x", "--resume", "true", "--overwrite", "true"], "overwrite or resume"),
    "nothing to resume": ("a.txt", "a", ["--resume", "true"], "expected an output file to resume"),
    "no such folder": ("a.txt", "a", ["--output", "none/x.jsonl"], "found none"),
    "an unknown argument": ("a.txt", "a", ["--outputs", "x"], "unknown arguments: --outputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(refused, checkpoint, write, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file, content, words, message = REFUSED[name]
    assert message in refused("predict", checkpoint, write(file, content), *words)


def test_a_model_without_pooling_has_no_kept_tokens(refused, shtopk, write, tmp_path, out):
    folder = save(BertForSequenceClassification(BertConfig(**BERT, num_labels=2)), tmp_path / "bert")
    source = write("a.txt", "a b c\n")
    assert "without a pooling" in refused("predict", folder, source, "--output", out, "--kept", "true")
    shtopk("predict", folder, source, "--output", out)
    assert len(answers(out)) == 1


def test_an_output_that_exists_and_an_input_are_never_overwritten_unasked(refused, shtopk, checkpoint, write, out):
    out.write_text("precious\n")
    source = write("a.txt", "a\n")
    assert "give --overwrite true or --resume true" in refused("predict", checkpoint, source, "--output", out)
    assert "cannot go on with" in refused("predict", checkpoint, source, "--output", out, "--resume", "true")
    assert out.read_text() == "precious\n"
    assert "for both" in refused("predict", checkpoint, source, "--output", source, "--overwrite", "true")
    shtopk("predict", checkpoint, source, "--output", out, "--overwrite", "true")
    assert len(answers(out)) == 1


def test_what_comes_before_a_broken_row_is_answered_and_once_it_is_mended_the_rest(
    refused, shtopk, checkpoint, write, rows, out
):
    lines = [json.dumps(row) for row in documents(200)]
    source = write("a.jsonl", "\n".join([*lines[:150], '{"text": 5}', *lines[151:]]))
    words = ["predict", checkpoint, source, "--output", out, "--keep", "id"]
    assert "expected a text in line 151 of" in refused(*words)
    assert [line["id"] for line in answers(out)] == list(range(150))
    write("a.jsonl", "\n".join(lines))
    shtopk(*words, "--resume", "true")
    assert [line["id"] for line in answers(out)] == list(range(200))


def test_broken_rows_are_reported_with_their_numbers_and_skipped_on_request(checkpoint, write, out, capsys):
    lines = [json.dumps(row) for row in documents(9)]
    lines[3], lines[6] = "{", "[]"
    source = write("a.jsonl", "\n".join(lines))
    words = ["predict", str(checkpoint), source, "--output", str(out), "--keep", "id", "--on_error", "skip"]
    assert main(words) == 0
    told = capsys.readouterr().err.splitlines()
    assert ["line 4" in told[0], "line 7" in told[1], len(told)] == [True, True, 3]
    assert all(line.startswith("shtopk predict: skipped: ") for line in told[:2])
    assert told[2] == "shtopk predict: skipped 2 broken rows, answered 7"
    assert [line["id"] for line in answers(out)] == [0, 1, 2, 4, 5, 7, 8]
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:4]))
    assert main([*words, "--resume", "true"]) == 0
    assert out.read_text() == whole
    told = capsys.readouterr().err.splitlines()
    assert [("line 7" in line) for line in told] == [True, False]  # line 4 was told before


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_a_model_whose_answers_are_no_numbers_has_failed(kind, copy, write, out, capsys):
    model, _ = load_checkpoint(copy)
    model.config.problem_type = kind
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    model.save_pretrained(copy)
    capsys.readouterr()
    assert main(["predict", str(copy), write("a.txt", "a\n"), "--output", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the model failed: its answer to line 1 of" in line


def test_binary_on_standard_input_is_refused(refused, checkpoint, write, monkeypatch, out):
    with open(write("a", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9)) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert "expected line 1 of standard input to be UTF-8, got the byte 0x89" in refused(
            "predict", checkpoint, "-", "--output", out
        )
    with open(write("a", b"\x1f\x8b\x08\x00\xff")) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert "a gzip archive; unpack it" in refused(
            "predict", checkpoint, "-", "--output", out, "--overwrite", "true"
        )


def test_no_documents_on_standard_input_have_no_answers(shtopk, checkpoint, write, monkeypatch, out):
    with open(write("a", "")) as file:
        monkeypatch.setattr(sys, "stdin", file)
        shtopk("predict", checkpoint, "-", "--output", out)
    assert out.read_text() == ""


@pytest.mark.slow
def test_a_refusal_imports_no_model():
    code = """
import sys
from shtopk.commands import main
try:
    main(["predict", "/nope", "x.txt"])
except SystemExit as stop:
    assert stop.code == 2
heavy = {"shtopk.models", "datasets", "accelerate", "sklearn", "transformers.modeling_utils"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_line_of_two_megabytes_is_answered(checkpoint, write, out, shtopk):
    shtopk("predict", checkpoint, write("a.txt", "goal " * 400_000 + "\nb\n"), "--output", out, "--kept")
    assert len(answers(out)) == 2
