"""Pairs, prefixes and languages: a model learns them, and what is saved with it reads further texts likewise."""

import csv
import json

import pytest
import torch
from accelerate.utils import set_seed
from refusals import assert_refused
from run_files import rows_of
from tiny import WORDS, tiny_tokenizer
from transformers import AutoTokenizer, MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration

import train
from shtopk.commands import main
from shtopk.models import load_checkpoint, predict
from shtopk.models.languages import set_languages
from shtopk.models.windows import reading_of
from shtopk.show.answer import show_document
from shtopk.tasks.pairs import generate
from shtopk.training.experiment import Experiment
from shtopk.training.run import Run


def without(words, *options):
    """A command line without these options."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in options for word in pair]


def predictions_of(run):
    return [row["prediction"] for row in rows_of(run / "predictions.jsonl")]


# Pairs


def test_pairs_are_learnt_and_read_again_as_pairs(words, tmp_path):
    """Which text is longer? The words are noise: 1.0 can be reached, 0.5 by chance."""
    fast = ["--epochs", "1", "--batch_size", "32", "--learning_rate", "3e-3", "--k", "8", "--show", "1"]
    results = train.main([*without(words, "--train_file"), "--task", "pairs", *fast])
    assert results["test_accuracy"] > 0.95
    run = tmp_path / "run"
    assert (run / "document_0.html").is_file()
    arguments = (run / "arguments.yaml").read_text()
    test = generate()["test"].select(range(40))
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("premise", "hypothesis"), *zip(test["text"], test["text_pair"], strict=True)])
    columns = ["--text_column", "premise", "--text_pair_column", "hypothesis"]
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(run), str(tmp_path / "new.csv"), "--output", str(out), *columns]) == 0
    answers = [row["prediction"] for row in rows_of(out)]
    assert answers == predictions_of(run)[:40]
    model, tokenizer = load_checkpoint(run)
    swapped = [(row["text_pair"], row["text"]) for row in test]
    flipped = [answer.label for answer in predict(model, tokenizer, swapped)]
    assert sum(one != other for one, other in zip(answers, flipped, strict=True)) > 36
    assert "text_pair_column" not in arguments  # a task of its own has no columns to name


def test_a_trained_model_of_pairs_reads_columns_as_in_training(words, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [{"q": "a b", "d": f"c {' '.join(f'{i:06b}')} goal", "label": ("x", "y")[i % 2]} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--text_column", "q", "--text_pair_column", "d"]
    train.main([*words, "--train_file", str(path), "--epochs", "1", *columns])
    run, out = str(tmp_path / "run"), tmp_path / "out.jsonl"
    assert main(["predict", run, str(path), "--kept", "true", "--output", str(out)]) == 0
    kept = rows_of(out)[0]["kept"]
    text = "a b\nc 0 0 0 0 0 0 goal"
    assert any(token["end"] for token in kept)
    assert all(text[token["start"] : token["end"]] == token["token"] for token in kept if token["end"])
    (tmp_path / "lines.txt").write_text("a b c\n")
    assert main(["evaluate", run, "--output_dir", str(tmp_path / "again")]) == 0
    assert predictions_of(tmp_path / "again") == predictions_of(tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["predict", run, str(tmp_path / "lines.txt")])
    assert_refused(capsys.readouterr().err.strip().splitlines()[-1], "lines of text", "'d'", "JSON lines or CSV")


# Prefixes


def test_a_prefix_is_saved_and_read_before_every_document(words, documents, tmp_path):
    train.main([*words, "--epochs", "1", "--source_prefix", "match shares ", "--window", "16"])
    run = tmp_path / "run"
    model, tokenizer = load_checkpoint(run)
    assert reading_of(model).prefix == "match shares " and reading_of(model).window == 16
    row = rows_of(documents)[0]["text"]
    encoded = Experiment.prepare([*words, "--source_prefix", "match shares ", "--window", "16", "--overwrite", "true"])
    ids = encoded.encoded["train"]["input_ids"]
    marks = [WORDS.index("match"), WORDS.index("shares")]
    assert all(list(one[1:3]) == marks and one.count(marks[0]) > 2 for one in ids)
    assert main(["evaluate", str(run), "--output_dir", str(tmp_path / "again")]) == 0
    assert predictions_of(tmp_path / "again") == predictions_of(run)
    page = show_document(model, tokenizer, row)
    assert page == show_document(model, tokenizer, row) and "match" not in page.split("<body>")[-1]


# Languages


@pytest.fixture
def mbart(tmp_path):
    """Folder of a tiny mBART-50 that knows our words."""
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary += [(f"▁{word}", -1.0) for word in WORDS[4:]]
    tokenizer = MBart50Tokenizer(vocab=vocabulary, src_lang="fr_XX", tgt_lang="fr_XX")
    torch.manual_seed(0)
    config = MBartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, dropout=0.0,
    )  # fmt: skip
    MBartForConditionalGeneration(config).save_pretrained(tmp_path / "mbart")
    tokenizer.save_pretrained(tmp_path / "mbart")
    return tmp_path / "mbart"


def test_a_model_of_many_languages_writes_in_the_target_language(summary_words, mbart, tmp_path):
    """The summary is one of two words of the document: 1.0 can be reached."""
    words = [*without(summary_words, "--decoder_layers"), "--backbone", str(mbart), "--max_summary_tokens", "6",
             "--source_lang", "en_XX", "--target_lang", "ro_RO", "--epochs", "5",
             "--generation", "{num_beams: 2}"]  # fmt: skip
    results = train.main(words)
    assert results["test_rouge1"] > 0.9
    run = tmp_path / "run"
    model, tokenizer = load_checkpoint(run)
    romanian, english = tokenizer.convert_tokens_to_ids(["ro_RO", "en_XX"])
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", "ro_RO")
    assert model.generation_config.forced_bos_token_id == romanian and model.generation_config.num_beams == 2
    assert tokenizer("goal")["input_ids"][0] == english
    generated = model.generate(torch.tensor(tokenizer(["a goal"])["input_ids"]))
    assert generated[0, 1] == romanian
    assert main(["evaluate", str(run), "--output_dir", str(tmp_path / "again")]) == 0
    assert predictions_of(tmp_path / "again") == predictions_of(run)


def test_languages_that_a_tokenizer_does_not_know_are_refused(mbart, refusal):
    tokenizer = AutoTokenizer.from_pretrained(mbart)
    with pytest.raises(ValueError, match=r"source_lang .* got 'en_x'; did you mean .*en_XX"):
        set_languages(tokenizer, "en_x", None)
    with pytest.raises(ValueError, match="expected a tokenizer of many languages"):
        set_languages(tiny_tokenizer(), None, "ro_RO")
    assert_refused(refusal("--source_lang", "en_XX"), "source_lang", "summaries")


# Generation


@pytest.mark.parametrize(("given", "named"), [
    ("{num_beam: 4}", ["'num_beam'", "did you mean num_beams?"]),
    ("{num_beams: four}", ["num_beams", "int", "'four'"]),
    ("{max_new_tokens: 4}", ["max_new_tokens", "max_summary_tokens"]),
    ("{num_return_sequences: 2}", ["num_return_sequences", "leave it out"]),
    ("num_beams", ["mapping", "'num_beams'"]),
    ("[a", ["mapping"]),
    ("{early_stopping: maybe}", ["early_stopping", "maybe"]),
    ("{temperature: 0.5}", ["temperature", "do_sample"]),
    ("{watermarking_config: {a: 1}}", ["generation", "'a'"]),
])  # fmt: skip
def test_impossible_fields_of_generation_are_refused_in_one_line(given, named, refusal, summary_words):
    assert_refused(refusal("--generation", given, base=summary_words), *named)


@pytest.mark.parametrize(("given", "named"), [
    ("{stop_strings: [a]}", ["stop strings"]),
    ("{bad_words_ids: 3}", ["bad_words_ids"]),
    ("{exponential_decay_length_penalty: 3}", ["TypeError"]),
])  # fmt: skip
def test_what_fails_only_while_texts_are_generated_is_refused_before_training(
    given, named, refusal, summary_words, prompt_words, tmp_path
):
    for words in (summary_words, prompt_words):
        assert_refused(refusal("--generation", given, base=words), "generation", "generation_config.json", *named)
        assert not (tmp_path / "run").exists()


def test_what_is_generated_before_training_changes_nothing_that_training_draws(summary_words):
    Run.prepare([*summary_words, "--generation", "{do_sample: true}"])
    drawn = torch.rand(8)
    set_seed(0, device_specific=True)
    assert torch.equal(drawn, torch.rand(8))


def test_a_field_of_generation_that_is_given_twice_is_refused(refusal, summary_words):
    words = ["--num_beams", "2", "--generation", "{num_beams: 4}"]
    assert_refused(refusal(*words, base=summary_words), "num_beams", "leave it out of generation")


def test_generation_may_be_a_mapping_in_yaml(summary_words, tmp_path):
    (tmp_path / "my.yaml").write_text("generation:\n  repetition_penalty: 1.2\n  suppress_tokens: [5, 6]\n")
    experiment = Experiment.prepare([*summary_words, "--config", str(tmp_path / "my.yaml")])
    settings = experiment.model.generation_config
    assert settings.repetition_penalty == 1.2 and settings.suppress_tokens == [5, 6]


# Processes


def test_processes_wait_long_for_the_first_one(words):
    assert Experiment.prepare(words).accelerator.init_handler.timeout.total_seconds() == 7200
