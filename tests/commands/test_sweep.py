"""`shtopk sweep`: one checkpoint at many settings, and the smallest k that is as good as the best."""

import json

import numpy as np
import pytest
from run_files import rows_of
from tiny import BERT, LLAMA, tiny_tokenizer, tiny_writer
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import load_checkpoint, predict
from shtopk.tasks.label_report import multi_label_report
from shtopk.training.sweep import Setting, kept_of_prompts, settings_of, smallest_within_noise, verdict


@pytest.fixture
def sweep(shtopk, tmp_path):
    def run(*words):
        shown = shtopk("sweep", *words, f"--output_dir={tmp_path / 'out'}", "--mixed_precision=no", "--overwrite=true")
        return json.loads((tmp_path / "out" / "sweep.json").read_text()), shown

    return run


def test_a_k_that_cannot_be_is_refused_before_any_is_evaluated(trained, words, refused, tmp_path):
    assert "5,000" in refused("sweep", trained(words), "--k=2,5000", f"--output_dir={tmp_path / 'out'}")
    assert not list((tmp_path / "out").iterdir())


def test_every_k_is_evaluated_with_every_operator_and_the_model_without_pooling_at_last(
    trained, words, sweep, tmp_path
):
    checkpoint = trained(words)
    record, shown = sweep(checkpoint, "--k=1,4,0.5", "--operator=successive_halving,hard")
    assert [(one["k"], one["way"]) for one in record["settings"]] == [
        (1, "successive_halving"), (4, "successive_halving"), (0.5, "successive_halving"),
        (1, "hard"), (4, "hard"), (0.5, "hard"), (None, "all tokens"),
    ]  # fmt: skip
    assert record["metric"] == "accuracy" and record["data"]["documents"] == 12
    before = json.loads((checkpoint / "all_results.json").read_text())
    as_trained = next(one for one in record["settings"] if one["k"] == 4)
    assert as_trained["quality"] == before["test_accuracy"]
    assert "The smallest k within the noise of the best: " in shown
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 1000
    assert "`shtopk sweep" in (tmp_path / "out" / "sweep.md").read_text()


def test_a_summarizer_shows_the_time_of_its_decoder(trained, summary_words, sweep):
    record, shown = sweep(trained(summary_words), "--k=2,4", "--max_eval_samples=4")
    few, more, every = (one["kept"] for one in record["settings"])
    assert (few, more) == (2, 4) and every > 4
    assert "decoder s" in shown and record["metric"] == "rougeL"
    assert all(0 < one["decoder_seconds"] < 4 / one["documents_per_second"] for one in record["settings"])


def test_a_model_that_pool_encoder_made_is_swept_too(sweep, documents, tmp_path):
    config = BertConfig(**BERT, id2label={0: "sport", 1: "money"})
    pool_encoder(BertForSequenceClassification(config), {1: 8}, protected=()).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    record, _ = sweep(tmp_path / "bert", f"--test_file={documents}", "--k=2,8", "--max_eval_samples=8")
    assert [one["k"] for one in record["settings"]] == [2, 8, None]


def test_temperatures_multiply_the_settings_too():
    found = settings_of([4, 8], ["hard", "iterative"], [0.5, 1.0])
    assert len(found) == 9
    assert found[0] == Setting(4, "hard", 0.5) and found[0].way == "hard, T = 0.5"
    assert found[0].pooling == {"k": 4, "operator": "hard", "temperature": 0.5}
    assert found[-1].pooling == {"unpooled": True}


def of(k, right, wrong=0, way="operator as trained"):
    scores = [1.0] * right + [0.0] * wrong
    return {"k": k, "kept": k, "way": way, "scores": scores, "quality": sum(scores) / len(scores)}


def test_a_share_is_compared_with_a_count_by_the_tokens_that_both_keep():
    rows = [of(8, 90, 10), of(0.9, 90, 10) | {"kept": 18.0}]
    assert smallest_within_noise(rows)[0]["k"] == 8


@pytest.mark.parametrize("more", [
    [], ["--protected", "0", "-1"], ["--k_by_layer=1:6"], ["--window=16", "--window_k=2"],
])  # fmt: skip
def test_the_tokens_kept_are_those_that_reach_the_head_whatever_pools_before(more, trained, words, documents, sweep):
    checkpoint, texts = trained([*words, *more]), [row["text"] for row in rows_of(documents)]
    record, _ = sweep(checkpoint, f"--test_file={documents}", "--k=4,0.5,12")
    for one in record["settings"]:
        if one["k"] is not None:
            answers = predict(*load_checkpoint(checkpoint, k=one["k"]), texts, kept=True)
            assert one["kept"] == pytest.approx(np.mean([len(answer.kept) for answer in answers])), one["k"]
    _, tokenizer = load_checkpoint(checkpoint)
    assert record["settings"][-1]["kept"] == np.mean([len(tokenizer(text).input_ids) for text in texts])


@pytest.mark.parametrize("k", [4, 0.1, 0.5, 1.0])
def test_what_a_language_model_keeps_whole_is_counted(k, tmp_path):
    plain = LlamaForCausalLM(LlamaConfig(**LLAMA | {"max_position_embeddings": 256}))
    pool_decoder(plain, {1: 4}, keep_last=5).save_pretrained(tmp_path)
    tiny_writer().save_pretrained(tmp_path)
    prompts = [" ".join("abcdefghijklmnopqrstuvwxyz"[:n]) for n in (3, 4, 5, 8, 26)]
    model, tokenizer = load_checkpoint(tmp_path, k=k)
    kept = [len(answer.kept) for answer in predict(model, tokenizer, prompts, kept=True)]
    lengths = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    assert [kept_of_prompts(model, np.array([n])) for n in lengths] == kept
    assert kept_of_prompts(model, np.array(lengths)) == np.mean(kept)


def labelled(k, given, true):
    figures, scores = multi_label_report(given, true, np.zeros((len(true), 3)), list("abc"))
    return {"k": k, "kept": k, "scores": scores, "quality": figures["metrics"]["f1_micro"]}


def test_labels_are_compared_by_their_micro_f1_not_by_documents_without_any():
    true = [[]] * 60 + [[0, 1, 2]] * 20
    silent = labelled(4, [[]] * 80, true)  # right about 60 of 80, which have no label
    eager = labelled(8, [[0]] * 60 + [[0, 1, 2]] * 20, true)
    found, best = smallest_within_noise([silent, eager])
    assert (found["k"], best["k"]) == (8, 8) and silent["quality"] == 0 < eager["quality"]


def test_of_labels_with_equal_figures_the_fewest_tokens_are_the_best():
    true = [[0, 1], [1], [2], [0]]
    fewest = labelled(4, [[0], [1], [2], [0, 1]], true)
    most = labelled(8, [[0, 1], [], [2], [0, 1]], true)
    assert fewest["quality"] == most["quality"] and np.mean(fewest["scores"]) < np.mean(most["scores"])  # by rounding
    assert smallest_within_noise([most, fewest])[1]["k"] == 4


def test_noise_is_that_of_the_difference_over_the_same_documents():
    rows = [of(1, 300, 100), of(4, 398, 2), of(8, 400), of(32, 400), of(None, 400)]
    found, best = smallest_within_noise(rows)
    assert (found["k"], best["k"]) == (4, 8)
    assert verdict(rows, "accuracy") == (
        "The smallest k within the noise of the best: k = 4 (operator as trained), accuracy 0.995. "
        "The best: k = 8 (operator as trained), 1.000."
    )
    assert smallest_within_noise([of(1, 360, 40), of(8, 400)])[0]["k"] == 8  # 40 of 400 worse, none better


@pytest.mark.parametrize(("words", "named"), [
    (["--k=0"], "expected k to be a whole number >= 1"), (["--k=four"], "expected k to be numbers with commas"),
    (["--k=,"], "got none"), (["--operator=soft"], "expected operator to be one of"),
    (["--temperature=0"], "expected temperature > 0"),
])  # fmt: skip
def test_impossible_settings_are_refused_before_anything_is_loaded(words, named, refused, tmp_path):
    (tmp_path / "config.json").touch()
    assert named in refused("sweep", tmp_path, "--task=bbc", *words, f"--output_dir={tmp_path / 'out'}")


def test_a_model_without_pooling_has_nothing_to_sweep(refused, documents, tmp_path):
    BertForSequenceClassification(BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    words = f"--test_file={documents}", f"--output_dir={tmp_path / 'out'}"
    assert "without a pooling has no k" in refused("sweep", tmp_path / "bert", *words)


def test_slots_that_no_document_can_fill_are_refused(refused, trained, words, tmp_path):
    run = trained([*words, "--epochs", "1"])
    assert "as the longest document has 158 tokens" in refused("sweep", run, "--k=1000000", f"--output_dir={tmp_path}")
