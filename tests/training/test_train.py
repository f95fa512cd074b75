"""train.py from the outside: what it writes, who wins over whom, and one clear line for everything impossible."""

import json
import shutil

import pytest
import torch
from refusals import assert_refused
from run_files import course, rows_of
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

import train
from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingForSequenceClassification
from shtopk.training import TrainArguments
from shtopk.training.build import parameter_groups
from shtopk.training.command_line import parse


def test_a_run_learns_and_leaves_a_checkpoint_that_a_pipeline_loads(words, documents, tmp_path):
    results = train.main([*words, "--show", "2", "--tracker", "tensorboard"])
    run = tmp_path / "run"
    written = json.loads((run / "all_results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert written["test_accuracy"] > 0.8
    assert (written["test_documents"], written["eval_documents"], written["updates"]) == (12, 6, 12 * 6)
    assert written["train_tokens_per_second"] > 0
    assert "--k 4" in written["command"]
    wanted = {"README.md", "config.json", "model.safetensors", "document_0.html", "document_1.html"}
    assert wanted <= {path.name for path in run.iterdir()}
    assert list(run.glob("logs/**/events*"))
    classify = pipeline("text-classification", model=str(run))
    rows = rows_of(documents)
    answers = classify([row["text"] for row in rows], batch_size=8)
    right = [answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True)]
    assert sum(right) > 0.9 * len(right)
    of_text = dict(zip([row["text"] for row in rows], zip(rows, answers, strict=True), strict=True))
    lines = rows_of(run / "predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(12))
    for line in lines:
        (text,) = [text for text in of_text if text.startswith(line["text"].removesuffix("…"))]
        row, answer = of_text[text]
        assert (line["reference"], line["prediction"]) == (row["label"], answer["label"])
        assert line["probability"] == pytest.approx(answer["score"], abs=2e-6)
        assert line["probability"] == round(line["probability"], 6)
    assert sum(line["prediction"] == line["reference"] for line in lines) / 12 == written["test_accuracy"]


def test_a_single_update_has_a_learning_rate(words, tmp_path):
    train.main([*words, "--max_steps", "1"])
    assert course(tmp_path / "run")[0]["learning_rate"] > 0


def test_the_same_seed_gives_the_same_weights(words, trained, tmp_path):
    words = [*words, "--epochs", "1"]
    train.main(words)
    folders = (trained(words), tmp_path / "run", trained([*words, "--seed", "3"]))
    one, same, other = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert one == same != other


def test_gradient_accumulation_counts_updates(words):
    assert (
        train.main([*words, "--epochs", "1", "--accumulation", "2"])["updates"] == 3
    )  # 42 documents: 6 micro-batches of 8


def test_encoder_decoder_head_and_scorer_have_learning_rates_of_their_own(words):
    classifier = TopKPoolingForSequenceClassification.from_backbone(words[3], num_labels=2, k=4)
    summarizer = TopKPoolingForConditionalGeneration.from_backbone(words[3], k=4, decoder_layers=1, copy_head=True)
    for model, rates in ((classifier, [5e-5, 1e-3, 1e-2]), (summarizer, [5e-5, 1e-4, 1e-3, 1e-2])):
        groups = parameter_groups(model, TrainArguments(decoder_learning_rate=1e-4))
        assert [group["lr"] for group in groups] == rates
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
        assert {id(p) for p in groups[-1]["params"]} == {id(p) for p in model.pooling.scorer.parameters()}


def test_frozen_parts_stay_as_they_were(words, tmp_path):
    train.main([*words, "--epochs", "1", "--freeze_encoder", "true", "--freeze_scorer", "true"])
    before = TopKPoolingForSequenceClassification.from_backbone(words[3], num_labels=2, k=4).state_dict()
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone"))
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_the_command_line_wins_over_the_yaml_and_the_yaml_over_the_defaults(tmp_path):
    config = tmp_path / "some.yaml"
    config.write_text("k: 8\nlearning_rate: 1e-3\nfreeze_encoder: true\ninitial_temperature: null\n")
    arguments = parse(["--config", str(config), "--k", "5", "--output_dir", str(tmp_path / "run")])
    assert (arguments.model.k, arguments.model.freeze_encoder) == ("5", True)
    assert (arguments.training.learning_rate, arguments.training.batch_size) == (1e-3, 16)
    assert arguments.model.temperature == 1.0


# Summaries


@pytest.mark.slow
def test_a_summarizer_learns_and_leaves_a_checkpoint_and_samples(summary_words, summaries, tmp_path):
    results = train.main([*summary_words, "--epochs", "20", "--no_repeat_ngram_size", "3", "--show", "2"])
    run = tmp_path / "run"
    assert results["test_rouge1"] > 0.8
    assert results["test_documents"] == 12
    assert results["baselines"]["first_16_words"]["rouge1"] < 0.3
    predictions = rows_of(run / "predictions.jsonl")
    assert len(predictions) == 12 and {row["reference"] for row in predictions} <= {"goal", "bank"}
    assert all(row.keys() == {"row", "text", "prediction", "reference"} for row in predictions)
    for i, row in enumerate(predictions[:2]):
        page = (run / f"document_{i}.html").read_text()
        assert f'<b dir="ltr">reference</b> {row["reference"]}<' in page
        assert f'id="o1">{row["prediction"].split()[0]}<' in page
    page = (run / "samples.md").read_text()
    assert page.count("**reference**") == page.count("**model**") == page.count("**first 16 words**") == 10
    model = AutoModelForSeq2SeqLM.from_pretrained(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert model.generation_config.no_repeat_ngram_size == 3
    said = model.generate(**tokenizer(["a b goal c"], return_tensors="pt", return_token_type_ids=False))
    assert said.shape[1] <= 5
    assert "AutoModelForSeq2SeqLM" in (run / "README.md").read_text()


def test_a_run_does_not_overwrite_another_unless_told_to(words, refusal, trained_here):
    trained_here([*words, "--epochs", "1"])
    assert_refused(refusal(), "output_dir")
    train.main([*words, "--epochs", "1", "--overwrite", "true"])


def test_damaged_weights_are_refused_in_one_line(refusal, encoder, tmp_path):
    damaged = shutil.copytree(encoder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    assert_refused(refusal("--backbone", damaged), "weights", damaged)


def test_layers_to_pool_at_come_from_yaml(words, tmp_path):
    config = tmp_path / "between.yaml"
    config.write_text("k_by_layer: {1: 8}\nepochs: 1\n")
    train.main([word for word in words if word not in ("--epochs", "12")] + ["--config", str(config)])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["k_by_layer"] == {"1": 8}
