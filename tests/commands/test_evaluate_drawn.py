"""A split that training drew holds the documents that it held out when it is evaluated, or that is said."""

import json

import pytest

from shtopk.commands import main


@pytest.mark.parametrize(("cells", "options"), [
    (lambda i: {"label": [["a"], ["a", "b"], []][i % 3]}, []),
    (lambda i: {"label": i / 4}, []),
    (lambda i: {"label": "xy"[i % 2], "other": "b c"}, ["--text_pair_column", "other"]),
    (lambda i: {"label": "xy"[i % 2]}, ["--max_eval_samples", "5"]),
])  # fmt: skip
def test_the_test_split_of_any_training_is_found_again(cells, options, words, rows, evaluate, tmp_path):
    path = rows({"text": f"a {'b ' * i}c"} | cells(i) for i in range(40))
    train = ["train", *words, "--train_file", str(path), *options, "--epochs", "1", "--max_train_samples", "8"]
    assert main(train) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    results, _ = evaluate(tmp_path / "run", *options[:2] * ("--max_eval_samples" in options))
    assert results["data"]["sha256"] == run["data"]["test"]["sha256"]
    evaluate(tmp_path / "run")


def test_a_test_split_that_would_be_drawn_from_another_file_than_in_training_is_refused(
    trained_here, words, documents, shtopk, refused, tmp_path
):
    checkpoint, before = trained_here(words), documents.read_text()
    out = f"--output_dir={tmp_path / 'out'}"
    more = [{"text": f"a b c {'ab'[i % 2]} " * i, "label": ("sport", "money")[i % 2]} for i in range(1, 41)]
    try:
        documents.write_text(before + "".join(json.dumps(row) + "\n" for row in more))
        for folder in (checkpoint, next((checkpoint / "checkpoints").iterdir())):
            assert "give others with --test_file" in refused("evaluate", folder, out)
        assert "give others with --test_file" in refused("sweep", checkpoint, out, "--k=2")
        assert "give others with --test_file" in refused("evaluate", checkpoint, out, "--max_eval_samples=5")
        spelled = documents.parent / ".." / documents.parent.name / documents.name
        assert "give others with --test_file" in refused("evaluate", checkpoint, out, f"--train_file={spelled}")
        shtopk("evaluate", checkpoint, out, f"--test_file={documents}", "--overwrite=true")
    finally:
        documents.write_text(before)
    shtopk("evaluate", checkpoint, out, "--max_eval_samples=5", "--overwrite=true")


@pytest.mark.parametrize("word", ["--data_seed=1", "--test_file={file} --split=validation", "--text_column=other"])
def test_a_split_that_is_drawn_in_another_way_than_in_training_is_refused(word, words, rows, refused, tmp_path):
    path = rows({"text": f"a {'b ' * i}c", "other": f"d {'c ' * i}", "label": "xy"[i % 2]} for i in range(40))
    assert main(["train", *words, "--train_file", str(path), "--epochs", "1"]) == 0
    more = word.format(file=path).split()
    line = refused("evaluate", tmp_path / "run", f"--train_file={path}", *more, f"--output_dir={tmp_path / 'out'}")
    assert line.startswith(more[0][2:].partition("=")[0]) and "may hold documents that were trained on" in line


def test_a_split_that_is_drawn_from_another_file_than_in_training_is_told(trained, words, documents, capsys, rows):
    checkpoint = trained(words)
    own = rows(json.loads(line) for line in documents.read_text().splitlines())
    grown = rows([json.loads(line) for line in own.read_text().splitlines()] * 2, "grown.jsonl")
    for path, told in ((own, False), (grown, True)):
        assert main(["evaluate", str(checkpoint), f"--train_file={path}", f"--output_dir={path}.out"]) == 0
        assert (f"the test split is drawn from {path}, and not from {documents}" in capsys.readouterr().err) is told
