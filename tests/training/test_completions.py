"""A causal language model whose prompts are pooled: trained on made-up prompts whose best figures are known."""

import json

import pytest
import torch
from pages import Text
from refusals import assert_refused
from run_files import course, results, rows_of
from safetensors.torch import load_file
from tiny import LLAMA, tiny_tokenizer, tiny_writer
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import shtopk.training.results
import train
from shtopk.commands import main
from shtopk.models import load_checkpoint, predict
from shtopk.training import Run, parse
from shtopk.training.completions import CompletionCollator, prompts_of


def of_test_split(run):
    return [line["prediction"] for line in rows_of(run / "predictions.jsonl")]


def prompts_in(path):
    return [row["prompt"] for row in rows_of(path)]


@pytest.fixture
def learnt(trained, prompt_words):
    return trained([*prompt_words, "--eval_every", "999"])


def test_completions_that_only_the_prompts_tell_are_learnt(learnt):
    figures = results(learnt)
    assert figures["test_exact_match"] == figures["test_rougeL"] == 1
    assert figures["test_loss"] < 0.1
    assert figures["eval_perplexity"] == pytest.approx(torch.tensor(figures["eval_loss"]).exp().item())
    assert figures["baselines"]["most_frequent"]["exact_match"] < 0.7
    assert set(of_test_split(learnt)) == {"match", "shares"}
    assert "load_pooled(AutoModelForCausalLM" in (learnt / "README.md").read_text()


def test_a_saved_model_has_the_figures_that_its_training_had(learnt, prompts, tmp_path):
    main(["evaluate", str(learnt), "--output_dir", str(tmp_path / "same")])
    found = json.loads((tmp_path / "same" / "results.json").read_text())["metrics"]
    assert found["loss"] == pytest.approx(results(learnt)["test_loss"], abs=1e-6)
    assert found["exact_match"] == 1
    assert of_test_split(tmp_path / "same") == of_test_split(learnt)
    words = [
        str(learnt),
        "--test_file",
        str(prompts),
        "--max_eval_samples",
        "20",
        "--output_dir",
        str(tmp_path / "new"),
    ]
    main(["evaluate", *words])
    assert json.loads((tmp_path / "new" / "results.json").read_text())["metrics"]["exact_match"] == 1


def test_a_saved_model_completes_files_of_prompts(learnt, prompts, tmp_path):
    main(["predict", str(learnt), str(prompts), "--output", str(tmp_path / "out.jsonl"), "--keep", "completion"])
    lines = rows_of(tmp_path / "out.jsonl")
    assert [line["prediction"] for line in lines] == [line["completion"].strip() for line in lines]
    alone = predict(*load_checkpoint(learnt), prompts_in(prompts)[:5], block=1)
    assert [answer.completion for answer in alone] == [line["prediction"] for line in lines[:5]]


def test_it_is_said_and_shown_which_tokens_of_a_prompt_were_kept(learnt, prompts, prompt_words, trained, tmp_path):
    main(["predict", str(learnt), str(prompts), "--kept", "--output", str(tmp_path / "out.jsonl")])
    for line, prompt in zip(rows_of(tmp_path / "out.jsonl"), prompts_in(prompts), strict=True):
        first, *others = line["kept"]
        assert (first["start"], first["end"], len(others)) == (0, 0, 4)  # [CLS], and four of its words
        assert [one["token"] for one in others] == [prompt[one["start"] : one["end"]] for one in others]
        assert others[-1]["token"] == prompt.split()[-1]
    run = trained([*prompt_words, "--eval_every", "999", "--show", "2"])
    assert all("reference" in (run / f"document_{i}.html").read_text() for i in range(2))
    (tmp_path / "prompt.txt").write_text(prompts_in(prompts)[0] + "\n")
    main(["show", str(learnt), str(tmp_path / "prompt.txt"), "--output", str(tmp_path / "page.html")])
    shown = Text((tmp_path / "page.html").read_text())
    assert shown.document == prompts_in(prompts)[0] and "match" in shown.said
    assert "5 of 32 tokens kept from layer 1 on" in shown.said


def test_what_a_divided_model_kept_is_shown_of_the_whole_one(prompt_words, trained_here, monkeypatch):
    trained_here([*prompt_words, "--eval_every", "999"])
    run = Run(parse([*prompt_words, "--show", "1", "--overwrite", "true"]))
    monkeypatch.setattr(shtopk.training.results, "FSDPModule", type(run.model))  # what one is, once it is divided
    shtopk.training.results.show_documents(run)
    assert "tokens kept from layer 1 on" in Text((run.output / "document_0.html").read_text()).said


def test_a_sweep_says_how_many_vectors_a_prompt_needs(learnt, tmp_path, capsys):
    main(["sweep", str(learnt), "--k", "2,4", "--output_dir", str(tmp_path / "sweep")])
    said = capsys.readouterr().out
    assert "rougeL" in said and "k = 2" in said
    assert (tmp_path / "sweep" / "sweep.md").is_file()


def test_lora_leaves_a_whole_model_whose_layers_it_moved(trained, prompt_words, language_model, tmp_path):
    run = trained([*prompt_words, "--epochs", "1", "--lora_r", "2", "--k_range", "3:9", "--accumulation", "2"])
    before, after = load_file(language_model / "model.safetensors"), load_file(run / "model.safetensors")
    moved = {name for name, weight in before.items() if not weight.equal(after[name])}
    assert moved == {f"model.layers.{i}.self_attn.{name}_proj.weight" for i in (0, 1) for name in ("q", "v")}
    assert all("prompt_pooling" in name for name in after.keys() - before.keys())
    main(["evaluate", str(run), "--output_dir", str(tmp_path / "same")])
    assert of_test_split(tmp_path / "same") == of_test_split(run)


def test_a_language_model_may_stay_as_it_is_while_the_scorer_learns(trained, prompt_words, language_model):
    run = trained([*prompt_words, "--epochs", "1", "--freeze_encoder", "true", "--batch_size", "32"])
    before, after = load_file(language_model / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(weight.equal(after[name]) for name, weight in before.items())
    assert results(run)["trained_parameters"] == 33


def test_weights_that_had_other_names_in_files_are_found_again(trained, prompt_words, tmp_path):
    sizes = {name: size for name, size in LLAMA.items() if name != "pad_token_id"}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))  # whose last layer is embed_out in files
    model.save_pretrained(tmp_path / "neox")
    tiny_writer().save_pretrained(tmp_path / "neox")
    run = trained([*prompt_words, "--backbone", str(tmp_path / "neox"), "--epochs", "1", "--batch_size", "32"])
    main(["evaluate", str(run), "--output_dir", str(tmp_path / "same")])
    found = json.loads((tmp_path / "same" / "results.json").read_text())["metrics"]
    assert found["loss"] == pytest.approx(results(run)["test_loss"], abs=1e-6)


def test_layers_that_keep_nothing_learn_the_same(trained, prompt_words):
    words = [*prompt_words, "--epochs", "1", "--batch_size", "16", "--label_smoothing", "0.1"]
    again = trained([*words, "--gradient_checkpointing", "true"])
    assert [row["loss"] for row in course(trained(words)) if "loss" in row] == pytest.approx(
        [row["loss"] for row in course(again) if "loss" in row]
    )


def test_a_dry_run_counts_tokens_and_parameters(prompt_words, capsys):
    train.main([*prompt_words, "--dry_run", "true"])
    said = capsys.readouterr().out
    assert "decoder" in said and "of 112" not in said and "the best loss is kept" in said


def test_a_batch_has_labels_behind_the_prompts_alone():
    rows = [{"input_ids": [2, 5, 6, 7], "labels": [8, 3]}, {"input_ids": [2, 4], "labels": [9, 9, 3]}]
    batch = CompletionCollator(pad_token_id=3, pad_to_multiple_of=4)(rows)
    assert batch["input_ids"].tolist() == [[3, 3, 2, 5, 6, 7, 8, 3], [3, 3, 3, 2, 4, 9, 9, 3]]
    assert batch["labels"].tolist() == [[-100] * 6 + [8, 3], [-100] * 5 + [9, 9, 3]]
    prompts = prompts_of(batch)
    assert prompts["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert prompts["input_ids"][0].tolist() == [2, 5, 6, 7] and prompts["input_ids"][1, 2:].tolist() == [2, 4]


@pytest.mark.parametrize(("given", "blamed"), [
    (["--k_by_layer", "none"], ["k_by_layer", "8:256"]),
    (["--k_by_layer", "9:4"], ["1..1", "9"]),
    (["--keep_last", "0"], ["keep_last", "0"]),
    (["--k", "8"], ["k", "k_by_layer"]),
    (["--window", "32"], ["window"]),
    (["--torch_compile", "true"], ["torch_compile"]),
    (["--copy_head", "true"], ["copy_head", "summaries"]),
    (["--class_weights", "balanced"], ["class_weights", "completions"]),
    (["--metric", "accuracy"], ["metric", "loss", "exact_match"]),
    (["--min_new_tokens", "9"], ["min_new_tokens", "max_completion_tokens"]),
    (["--max_completion_tokens", "64"], ["completions", "64"]),
    (["--max_tokens", "1"], ["max_tokens", "1"]),
    (["--keep_last", "2", "--task", "pairs"], ["train_file"]),
], ids=str)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(refusal, prompt_words, given, blamed):
    assert_refused(refusal(*given, base=prompt_words), *blamed)


def test_a_model_that_fills_masks_completes_nothing(refusal, prompt_words, encoder):
    assert_refused(refusal("--backbone", encoder, base=prompt_words), "backbone", "llama", "bert")


def test_an_end_of_prompts_is_kept_for_completions_alone(refusal):
    assert_refused(refusal("--keep_last", "2"), "keep_last", "completions")


def test_a_tokenizer_that_ends_no_text_is_refused(refusal, prompt_words, language_model, tmp_path):
    for path in language_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tiny_tokenizer().save_pretrained(tmp_path)
    assert_refused(refusal("--backbone", tmp_path, base=prompt_words), "eos_token")
