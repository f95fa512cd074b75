"""The benchmarks on token vectors drawn here: every row of the table trains, and what should win wins."""

import json
import time
from functools import partial

import budgets
import growth
import pytest
import speed
import torch
from compare import Frozen, summary, table
from frozen import Classifier, Split, fit, predict
from literal import literal_successive_halving
from memory import saved_bytes
from pace import pace
from paper import METHODS, measure, seconds
from planted import Method, Size, attention, fixed, mean_of, subset_sampler, train
from record import resume, save
from variants import NEEDLE_ONLY, VARIANTS

from shtopk import hard_topk, successive_halving_topk
from shtopk.models import load_tokenizer

EVERY = {variant.name: variant for variant in VARIANTS + NEEDLE_ONLY}


@pytest.fixture(scope="module")
def split():
    """480 documents of 20 to 40 tokens, 3 of them at a random place marked and carrying one of 3 classes."""
    torch.manual_seed(0)
    lengths = torch.randint(20, 41, (480,))
    labels = torch.arange(480) % 3
    hidden_states = torch.randn(int(lengths.sum()), 16)
    evidence = torch.zeros(len(hidden_states), dtype=torch.bool)
    for document, start in enumerate(lengths.cumsum(0) - lengths):
        place = int(start + torch.randint(0, int(lengths[document]) - 3, ()))
        evidence[place : place + 3] = True
        hidden_states[place : place + 3, 0] = 5
        hidden_states[place : place + 3, 1 + labels[document]] += 3
    return Split(hidden_states, evidence, lengths, labels)


def accuracy_and_share(variant, split, k=3, **options):
    torch.manual_seed(0)
    classifier = Classifier(16, 3, k if variant.k is None else variant.k, variant)
    fit(classifier, split, seed=0, scorer_learning_rate=variant.scorer_learning_rate, **options)
    predictions, share = predict(classifier, split)
    return float((predictions == split.labels).float().mean()), share


@pytest.mark.parametrize("name", EVERY)
def test_every_variant_trains(name, split):
    accuracy, share = accuracy_and_share(EVERY[name], split, epochs=1)
    assert 0 <= accuracy <= 1
    assert 0 <= share <= 1


def test_the_oracle_sees_evidence_alone(split):
    assert accuracy_and_share(EVERY["oracle: mean of the evidence"], split, epochs=20) == (1.0, 1.0)


def test_learning_what_to_keep_pays(split):
    learned, kept = accuracy_and_share(EVERY["successive halving"], split, epochs=40)
    drawn, drawn_kept = accuracy_and_share(EVERY["random scorer, frozen"], split, epochs=40)
    assert learned > 0.95 > drawn
    assert kept > 0.9 > drawn_kept


def test_one_training_with_k_drawn_is_tested_at_every_k_beside_one_for_each(split):
    runs = [budgets.train_and_test(trained, [2, 6], 0, split, split, epochs=20) for trained in ("drawn", "2", "6")]
    accuracy = {run["trained"]: [one["accuracy"] for one in run["tested"]] for run in runs}
    assert min(accuracy["drawn"]) > 0.8
    record = {"command": "python x.py", "device": "a device", "torch": "2", "epochs": 20, "runs": runs}
    lines = budgets.table(record).splitlines()
    assert lines[0] == "| accuracy, trained with | k = 2 | k = 6 |"
    assert lines[2] == f"| k drawn, 2 to 6 | {accuracy['drawn'][0]:.3f} | {accuracy['drawn'][1]:.3f} |"
    assert lines[3] == f"| the k of each column | {accuracy['2'][0]:.3f} | {accuracy['6'][1]:.3f} |"


def test_the_table_shows_mean_and_spread_and_the_seconds_from_where_all_took_turns():
    run = {"variant": "a", "k": "8", "train_seconds": 999, "generated_tokens_per_second": 9, "peak_mib": 7}
    runs = [run | {"seed": 0, "rouge1": 0.5}, run | {"seed": 1, "rouge1": 0.7}]
    runs.append(runs[0] | {"variant": "b"})
    paces = [{"variant": "a", "k": "8", "updates": 20, "update_seconds": 0.5, "generated_tokens_per_second": 30.0}]
    record = {"command": "python x.py", "device": "a device", "torch": "2", "runs": runs, "pace": paces}
    lines = table(record).splitlines()
    assert lines[0] == "| pooling | k | ROUGE-1 | training s | generated tokens/s | peak MiB |"
    assert lines[2] == "| a | 8 | 0.600 ± 0.141 | 10 | 30 | 7 |"
    assert lines[3] == "| b | 8 | 0.500 |  |  | 7 |"  # not paced yet
    assert all(part in lines[-1] for part in ("seeds 0, 1", "20 updates", "`python x.py` on a device"))


def answered(variant, k, seed, correct):
    return {"variant": variant, "k": k, "seed": seed, "accuracy": sum(map(int, correct)) / len(correct),
            "correct": correct, "train_seconds": 5.0}  # fmt: skip


@pytest.fixture
def answers():
    """Four variants that answer 40 documents; the mean is as good as the best with 8 slots, and no more with 32."""
    runs = [
        *(answered("successive halving", "8", seed, "1" * 34 + "0" * 6) for seed in (0, 1)),
        answered("first k tokens", "8", 0, "1" * 20 + "0" * 20),
        answered("mean of all tokens", "all", 0, "0" + "1" * 34 + "0" * 5),
        answered("oracle: mean of the evidence", "all", 0, "1" * 40),
        answered("successive halving", "32", 0, "1" * 40),
    ]
    return {"command": "python x.py", "device": "a device", "torch": "2", "runs": runs}


def test_bold_is_the_best_accuracy_or_one_within_a_paired_error_of_it(answers):
    lines = table(answers).splitlines()
    assert "| successive halving | 8 | **0.850 ± 0.000** | 5.0 |" in lines
    assert "| successive halving | 32 | **1.000** | 5.0 |" in lines
    assert "| mean of all tokens | all | 0.850 | 5.0 |" in lines  # of those with 8, not of those with 32
    assert "| oracle: mean of the evidence | all | 1.000 | 5.0 |" in lines
    assert "Bold: best, or within one paired standard error" in lines[-1]
    answers["runs"].pop()
    assert "| mean of all tokens | all | **0.850** | 5.0 |" in table(answers)
    assert "| mean of all tokens | **0.850** | 5.0 |" in summary(answers)
    assert "| first k tokens | 0.500 | 5.0 |" in summary(answers)


def test_rows_without_stored_answers_have_no_bold(answers):
    del answers["runs"][0]["correct"]
    lines = table(answers).splitlines()
    assert "| successive halving | 8 | 0.850 ± 0.000 | 5.0 |" in lines
    answers["runs"][0]["accuracy"] = 0.9  # now better than all that stored theirs: the others' distance is not known
    answers["runs"].pop()
    assert "**" not in table(answers)
    assert "Bold" not in table(answers)


def test_a_run_stores_which_documents_were_answered_right(split):
    frozen = object.__new__(Frozen)
    frozen.device, frozen.classes, frozen.splits = torch.device("cpu"), 3, {"train": split, "test": split}
    run = frozen(EVERY["mean of all tokens"], 1.0, seed=0)
    assert len(run["correct"]) == len(split.labels) and set(run["correct"]) == {"0", "1"}
    assert run["correct"].count("1") / len(split.labels) == pytest.approx(run["accuracy"])


def test_all_command_lines_take_turns(summary_words):
    words = [*summary_words, "--epochs", "2.5"]
    soft, hard = pace([words, [*words, "--operator=hard_gated"]], torch.device("cpu"))
    assert soft["updates"] == hard["updates"] == 15  # two and a half times 42 training documents, eight at a time
    assert min(soft["update_seconds"], hard["update_seconds"], hard["generated_tokens_per_second"]) > 0


def test_a_record_goes_on_where_it_stopped_but_not_on_another_machine(tmp_path):
    path = tmp_path / "some.json"
    record = resume(path, "cpu", size="small")
    record["runs"].append({"seconds": 1.0})
    save(record, path)
    assert resume(path, "cpu", size="small")["runs"] == [{"seconds": 1.0}]
    with pytest.raises(SystemExit, match="has figures of size small, this is large; move it away"):
        resume(path, "cpu", size="large")
    save(record | {"device": "a GPU"}, path)
    with pytest.raises(SystemExit, match="has figures of device a GPU, this is"):
        resume(path, "cpu", size="small")


def test_the_literal_algorithm_is_what_the_library_computes():
    values, scores = torch.randn(3, 64, 5), torch.rand(3, 64)
    expected = successive_halving_topk(values, scores, 4, boost="softmax", temperature=0.3).values
    torch.testing.assert_close(literal_successive_halving(values, scores, 4, temperature=0.3), expected)


def test_the_papers_evaluation_measures_every_method():
    runs = measure(16, 2, "cpu", least=0.01)
    assert [run["method"] for run in runs] == list(METHODS)
    for run in runs:
        assert run["seconds"] > 0
        assert (run["nccs"] > 0.9) == (run["method"] != "iterative, as published")


def test_a_method_that_is_disturbed_in_one_turn_keeps_its_time():
    end = time.monotonic() + 0.01  # in its first turn

    def disturbed(values, scores, k):
        time.sleep(0.01 if time.monotonic() < end else 0)

    assert max(seconds([disturbed, lambda *given: None], 16, 2, "cpu", least=0.05)) < 0.005


def test_of_a_tournament_a_few_numbers_per_token_are_kept_for_backward():
    values, scores = torch.randn(2, 4096, 64, requires_grad=True), torch.randn(2, 4096, requires_grad=True)
    saved = lambda method: saved_bytes(lambda: speed.METHODS[method](values, scores, 32), values, scores)
    kept = saved("successive halving") / scores.numel()
    assert kept < 30  # bytes per token: a weight and few more; the values themselves are 256
    assert saved("literal Algorithm 2") / scores.numel() > 256


def test_planted_tokens_are_found_by_the_soft_operator_and_not_by_the_hard_one():
    size = Size(n=64, k=4, depth=16, updates=200, seeds=(0,))
    found = {}
    for name, pool in (("soft", successive_halving_topk), ("hard", hard_topk)):
        found[name] = train(Method(name, partial(mean_of, pool), fixed(1)), 4.0, 0.0625, 0.03, size, 0, "cpu")
    assert found["soft"]["recall"] > 0.9 > 0.5 > found["hard"]["recall"]
    assert found["soft"]["loss_hard"] < 0.1 < 0.9 < found["hard"]["loss_hard"]


@pytest.mark.parametrize("pool", [subset_sampler, attention])
def test_the_samplers_weights_sum_to_one(pool):
    scores = torch.randn(2, 10, 3) if pool is attention else torch.randn(2, 10)
    torch.testing.assert_close(pool(torch.ones(2, 10, 4), scores, 3, 0.5), torch.ones(2, 4))


def test_documents_that_grow_have_the_tokens_that_were_asked_for(tmp_path):
    path = growth.documents(tmp_path, 300, 4)
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert [len(ids) for ids in load_tokenizer(None)(texts)["input_ids"]] == [300] * 4


def test_single_steps_are_shown_with_their_percentiles(monkeypatch):
    monkeypatch.setattr(speed, "STEPS", 3)
    took = iter([9, 1, 1, 2, 2, 2, 1, 4, 4])  # seconds of three ways, three times
    monkeypatch.setattr(speed, "timeit", lambda once, number: once() or next(took))
    runs = [{"memory": speed.AS_IT_IS} | run for run in speed.single_steps(64, 8, None)]
    lines = speed.evenness({"steps": runs}).splitlines()
    assert lines[5] == f"| 64 | 8 | as it is | {speed.OURS} | 2000.0 | 7600.0 | 8860.0 | 4000.0 |"
    assert speed.evenness({"runs": []}) == ""
