"""`shtopk evaluate`: figures of any checkpoint on any data, and one line for what cannot be evaluated."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from tiny import BART, BERT, tiny_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from shtopk.commands import main
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import load_checkpoint, predict
from shtopk.training import measured


@pytest.fixture
def checkpoint(trained, words):
    return trained(words)


@pytest.fixture
def summarizer(trained, summary_words):
    return trained(summary_words)


def test_without_data_of_its_own_it_evaluates_the_test_split_of_the_training(checkpoint, evaluate, tmp_path):
    before = json.loads((checkpoint / "all_results.json").read_text())
    results, shown = evaluate(checkpoint)
    assert results["metrics"]["accuracy"] == before["test_accuracy"]
    assert results["metrics"]["f1"] == pytest.approx(before["test_f1"])
    run = json.loads((checkpoint / "run.json").read_text())
    assert results["data"]["sha256"] == run["data"]["test"]["sha256"]
    assert results["data"]["documents"] == 12
    assert results["command"].startswith("shtopk evaluate")
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 1000
    assert f"{before['test_accuracy']:.3f}" in shown and "money" in shown


def test_names_of_classes_are_drawn_as_they_are(evaluate, rows, tmp_path):
    names = ["$_$", "a$^b$", r"\frac{$"]
    model = BertForSequenceClassification(BertConfig(**BERT, id2label=dict(enumerate(names))))
    folder = saved(pool_encoder(model, {1: 8}), tmp_path / "bert")
    documents = [{"text": "a b c", "label": name} for name in names]
    results, _ = evaluate(folder, f"--test_file={rows(documents)}")
    assert list(results["classes"]) == names
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 1000
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3


def test_figures_are_written_before_the_picture(monkeypatch, tmp_path):
    monkeypatch.setattr(measured, "draw_confusion", lambda *_: pytest.fail("no picture"))
    with pytest.raises(pytest.fail.Exception, match="no picture"):
        measured.write_results({"confusion": [[1]], "classes": {"a": {}}}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["confusion"] == [[1]]


def test_labels_are_matched_by_name_whatever_their_order(checkpoint, evaluate, rows, tmp_path):
    documents = [{"text": "a b c bank " * 12, "label": "money"}] * 3 + [{"text": "a b c goal " * 12, "label": "sport"}]
    results, _ = evaluate(checkpoint, f"--test_file={rows(documents)}")
    assert [results["classes"][name]["documents"] for name in ("money", "sport")] == [3, 1]
    assert results["metrics"]["accuracy"] == 1
    assert results["confusion"] == [[3, 0], [0, 1]]
    answered = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in answered] == ["money", "money", "money", "sport"]
    assert [row["reference"] for row in answered] == ["money", "money", "money", "sport"]
    assert all(0.5 < row["probability"] <= 1 for row in answered)


def test_columns_are_those_of_the_training_unless_named(summarizer, evaluate, rows):
    documents = [{"body": f"a b c d e f g h {word}", "gist": word} for word in ("goal", "bank", "goal")]
    results, shown = evaluate(summarizer, f"--test_file={rows(documents)}")
    assert results["data"]["documents"] == 3
    assert results["metrics"]["rouge1"] == 1
    assert results["intervals"]["rouge1"] == [1, 1]
    assert "first_sentence" in results["baselines"] and "first_sentence" in shown
    others = [{"article": row["body"], "abstract": row["gist"]} for row in documents]
    again, _ = evaluate(
        summarizer, f"--test_file={rows(others)}", "--text_column=article", "--summary_column=abstract"
    )
    assert again["metrics"] == results["metrics"]


def test_the_second_text_of_a_model_of_the_task_pairs_is_read_from_files_too(
    checkpoint, evaluate, refused, rows, tmp_path
):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "arguments.yaml").write_text("task: pairs\n")
    evaluate(copy, f"--test_file={rows([{'text': 'a b', 'text_pair': 'bank c', 'label': 'sport'}])}")
    (expected,) = predict(*load_checkpoint(copy), [("a b", "bank c")])
    answered = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    assert answered["probability"] == pytest.approx(expected.probability, abs=1e-5)
    alone = f"--test_file={rows([{'text': 'a', 'label': 'sport'}], 'alone.jsonl')}"
    assert "a column 'text_pair'" in refused("evaluate", copy, alone, "--mixed_precision=no")


def test_a_checkpoint_of_a_run_is_evaluated_as_the_run_is(checkpoint, evaluate):
    before = json.loads((checkpoint / "all_results.json").read_text())
    results, _ = evaluate(checkpoint / "checkpoints" / f"update_{before['best_update']}")
    assert results["metrics"]["accuracy"] == before["test_accuracy"] and results["data"]["documents"] == 12


def saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooled", [True, False])
def test_a_model_of_transformers_is_evaluated_too(pooled, evaluate, documents, tmp_path):
    config = BertConfig(**BERT, id2label={0: "sport", 1: "money"})
    model = BertForSequenceClassification(config)
    model = pool_encoder(model, {1: 8}) if pooled else model
    results, _ = evaluate(saved(model, tmp_path / "bert"), f"--test_file={documents}", "--max_eval_samples=20")
    assert results["checkpoint"]["model"] == "BertForSequenceClassification"
    assert results["data"]["documents"] == 20
    assert sum(map(sum, results["confusion"])) == 20


def test_a_summarizer_of_transformers_needs_no_name_of_the_column_that_is_called_summary(evaluate, rows, tmp_path):
    folder = saved(BartForConditionalGeneration(BartConfig(**BART)), tmp_path / "bart")
    documents = [{"text": "a b goal", "summary": "goal"}]
    results, _ = evaluate(folder, f"--test_file={rows(documents)}", "--max_summary_tokens=4")
    assert "rouge1" in results["metrics"]


def test_data_of_another_kind_is_refused(checkpoint, summarizer, refused, rows, summaries):
    words = f"--test_file={summaries}", "--text_column=body", "--summary_column=gist"
    assert "classifies, but the task files has summaries; leave out --summary_column" in refused(
        "evaluate", checkpoint, *words
    )
    assert "--label_column" in refused("evaluate", checkpoint, f"--test_file={summaries}", "--text_column=body")
    labels = rows([{"body": "a", "label": "sport"}])
    assert "a column 'gist'" in refused("evaluate", summarizer, f"--test_file={labels}")


def test_labels_of_another_data_set_are_refused_or_left_out_when_told_to(checkpoint, refused, evaluate, rows):
    file = f"--test_file={rows([{'text': 'a', 'label': 'opera'}, {'text': 'b', 'label': 'money'}])}"
    line = refused("evaluate", checkpoint, file)
    assert line.startswith("expected labels that the model knows ('money', 'sport'), got 'opera'; drop_unknown_labels")
    results, shown = evaluate(checkpoint, file, "--drop_unknown_labels=true")
    assert results["data"]["documents"] == 1
    assert "labels: 1 documents of test left out, whose labels ('opera') are unknown" in shown


def test_half_a_checkpoint_and_none_are_refused(checkpoint, refused, documents, tmp_path):
    assert "found none" in refused("evaluate", tmp_path / "nowhere", f"--test_file={documents}")
    half = shutil.copytree(checkpoint, tmp_path / "half")
    (half / "model.safetensors").unlink()
    assert "cannot load the checkpoint" in refused("evaluate", half, f"--test_file={documents}")


def test_what_lies_in_the_output_folder_is_not_replaced_unasked(checkpoint, refused, documents, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    line = refused("evaluate", checkpoint, f"--test_file={documents}", f"--output_dir={tmp_path}")
    assert "is not empty" in line and "--overwrite" in line and "--resume" not in line
    assert (tmp_path / "results.json").read_text() == "{}"


@pytest.mark.parametrize(("content", "named"), [("", "empty"), ("\n\n", "none"), ('{"text": "a"}\n', "label")])
def test_files_without_anything_to_evaluate_are_refused(content, named, checkpoint, refused, tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(content)
    assert named in refused("evaluate", checkpoint, f"--test_file={path}")


def test_a_split_that_there_is_not_is_refused(checkpoint, refused, documents):
    assert "expected split to be one of" in refused("evaluate", checkpoint, "--split=dev")
    line = refused("evaluate", checkpoint, f"--test_file={documents}", "--split=validation")
    assert "expected a file of the split validation" in line


def test_a_full_disk_costs_files_but_no_figures(checkpoint, documents, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(checkpoint), f"--test_file={documents}", f"--output_dir={tmp_path}/out",
              "--mixed_precision=no"])  # fmt: skip
    shown = capsys.readouterr()
    assert stop.value.code == 1
    assert "shtopk evaluate: cannot read or write: No space left on device" in shown.err
    assert "accuracy" in shown.out


@pytest.mark.slow
def test_nobody_reading_on_is_no_failure_and_loses_nothing(checkpoint, documents, tmp_path):
    words = [
        sys.executable,
        "-m",
        "shtopk",
        "evaluate",
        checkpoint,
        f"--test_file={documents}",
        f"--output_dir={tmp_path}/out",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    _, err = process.communicate()
    assert process.returncode == 141
    assert "Traceback" not in err and "shtopk evaluate" not in err
    assert (tmp_path / "out" / "results.json").exists()


def test_a_checkpoint_of_trainer_and_an_adapter_over_one_of_ours_are_evaluated_too(
    checkpoint, evaluate, documents, tmp_path
):
    model, tokenizer = load_checkpoint(checkpoint)
    options = TrainingArguments(str(tmp_path / "trainer"), report_to=[], use_cpu=True)
    Trainer(model=model, args=options, processing_class=tokenizer).save_model()
    expected, _ = evaluate(checkpoint, f"--test_file={documents}")
    results, _ = evaluate(tmp_path / "trainer", f"--test_file={documents}")
    assert results["metrics"] == expected["metrics"]

    adapted = get_peft_model(
        model, LoraConfig(target_modules=["query"], init_lora_weights=True)
    )  # changes nothing yet
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    results, _ = evaluate(tmp_path / "adapter", f"--test_file={documents}")
    assert results["metrics"] == pytest.approx(expected["metrics"])
    assert results["checkpoint"]["model"].startswith("Peft")
    assert results["checkpoint"]["sha256"] != expected["checkpoint"]["sha256"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(checkpoint, evaluate, documents, tmp_path):
    expected, _ = evaluate(checkpoint, f"--test_file={documents}", "--eval_batch_size=7")
    words = ["-m", "shtopk", "evaluate", checkpoint, f"--test_file={documents}", "--eval_batch_size=7",
             f"--output_dir={tmp_path / 'two'}", "--mixed_precision=no"]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words],
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["processes"] == 2
    assert {name: results[name] for name in ("confusion", "intervals")} == {
        name: expected[name] for name in ("confusion", "intervals")
    }
    assert run.stdout.count("accuracy") == 1


@pytest.mark.parametrize(("content", "named"), [
    ("task: bbc\nmax_tokens: many\n", "max_tokens"), ("- 1\n", "field: value"), ("text_column: [a\n", "cannot read"),
    ("task: [1]\n", "task"),
])  # fmt: skip
def test_a_damaged_record_of_the_training_is_refused(content, named, checkpoint, refused, documents, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "arguments.yaml").write_text(content)
    assert named in refused("evaluate", copy)


@pytest.mark.parametrize(
    "word", ["--max_eval_samples=0", "--max_tokens=-1", "--dataset_name=imdb", "--eval_batch_size=0"]
)
def test_impossible_limits_are_refused(word, checkpoint, refused, documents):
    assert word[2:].partition("=")[0] in refused("evaluate", checkpoint, f"--test_file={documents}", word)


def test_data_that_the_checkpoint_does_not_name_is_asked_for(checkpoint, refused, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "arguments.yaml").write_text("train_file: elsewhere.csv\n")
    assert "elsewhere.csv, is not to be found from here; name data with --test_file" in refused("evaluate", copy)
    (copy / "arguments.yaml").unlink()
    assert "does not say what it was trained on; name data with --test_file" in refused("evaluate", copy)


def test_options_of_generation_that_cannot_work_are_refused(summarizer, refused, tmp_path):
    folder = shutil.copytree(summarizer, tmp_path / "run")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stop_strings": ["a"]}))
    assert "generation_config.json" in refused("evaluate", folder, f"--output_dir={tmp_path / 'out'}")
