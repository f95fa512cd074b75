"""Labels, numbers and classes of unlike size: trained on made-up documents whose best figures are known."""

import json
import random

import pytest
from refusals import assert_refused
from run_files import rows_of

from shtopk.commands import main
from shtopk.models import load_checkpoint, predict
from shtopk.training.run import Progress

LABELS = ("--tune_thresholds", "true", "--label_smoothing", "0.1", "--epochs", "7", "--learning_rate", "1e-2")
MARKS = {"goal": "sport", "bank": "money", "match": "law"}


def written(path, count, make):
    """A file of documents: 30 letters, and words among them that decide about the answer."""
    draw = random.Random(0)
    with path.open("w") as file:
        for i in range(count):
            words, answer = make(draw, i)
            text = draw.choices("abcdef", k=30) + words
            draw.shuffle(text)
            file.write(json.dumps({"text": " ".join(text), "label": answer}) + "\n")
    return path


@pytest.fixture(scope="session")
def topics(tmp_path_factory):
    """Each word stands for a label, in a third of the documents: with k 4 everything can be told, micro-F1 1."""

    def make(draw, i):
        words = [word for word in MARKS if draw.random() < 1 / 3]
        return words, [MARKS[word] for word in words]

    return written(tmp_path_factory.mktemp("topics") / "topics.jsonl", 160, make)


@pytest.fixture(scope="session")
def prices(tmp_path_factory):
    """One of four words says the price, but for noise: nobody can get below a mean squared error of 25."""

    def make(draw, i):
        word = draw.choice(("goal", "bank", "match", "shares"))
        price = {"goal": 1000, "bank": 1100, "match": 1200, "shares": 1300}[word]
        return [word], price + draw.choice((-5.0, 5.0)) + 0.5

    return written(tmp_path_factory.mktemp("prices") / "prices.jsonl", 160, make)


@pytest.fixture(scope="session")
def complaints(tmp_path_factory):
    """A word is in two of five documents, and two of five of these are complaints; all others are not.

    Whoever wants to be right most often never answers complaint. Where both classes count the same, the word decides.
    """

    def make(draw, i):
        return (["bank"] if i % 5 < 2 else ["goal"]), ("complaint" if i % 25 in (0, 1, 5, 6) else "other")

    return written(tmp_path_factory.mktemp("complaints") / "complaints.jsonl", 160, make)


@pytest.fixture
def words_for(words):
    return lambda path, *more: [
        *words,
        "--train_file",
        str(path),
        "--head_learning_rate",
        "1e-2",
        "--eval_every",
        "999",
        *more,
    ]


@pytest.mark.slow
def test_labels_are_learnt_with_thresholds_that_evaluation_and_prediction_use(trained, words_for, topics, tmp_path,
                                                                                capsys):  # fmt: skip
    run = trained(words_for(topics, *LABELS))
    results = json.loads((run / "all_results.json").read_text())
    assert results["test_f1_micro"] > 0.9 and results["test_f1"] > 0.9  # chance: 0.33
    config = json.loads((run / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert set(results["label_thresholds"]) == {"sport", "money", "law"}
    assert config["label_thresholds"] == [results["label_thresholds"][name] for name in ("law", "money", "sport")]
    assert "label_thresholds" in (run / "README.md").read_text() and "f1_micro" in (run / "README.md").read_text()

    # Other thresholds, by which the answers show that they are heeded: no law, and always sport.
    config["label_thresholds"] = [0.999, 0.5, 0.001]
    (run / "config.json").write_text(json.dumps(config))
    main(["evaluate", str(run), f"--output_dir={tmp_path / 'out'}", "--mixed_precision=no"])
    assert "threshold" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["classes"]["law"] | {"threshold": 0.999, "recall": 0, "f1": 0} == found["classes"]["law"]
    assert found["classes"]["sport"]["recall"] == 1 > found["classes"]["sport"]["precision"]
    assert found["metrics"]["auroc"] > 0.95
    answered = rows_of(tmp_path / "out" / "predictions.jsonl")
    assert len(answered) == results["test_documents"] and all("sport" in row["prediction"] for row in answered)
    assert all(len(row["probability"]) == len(row["prediction"]) for row in answered)
    model, tokenizer = load_checkpoint(run)
    texts = [row["text"] for row in rows_of(topics)]
    given = list(predict(model, tokenizer, texts[:8]))
    assert all("sport" in one.labels and "law" not in one.labels for one in given)
    main(["show", str(run), str(topics), f"--output={tmp_path / 'page.html'}"])
    assert 'sport <span dir="ltr">(from 0.1 %)</span>' in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_numbers_are_learnt_and_the_smallest_error_is_the_best(trained, words_for, prices, tmp_path):
    run = trained(words_for(prices, "--epochs", "7", "--eval_every", "25", "--show", "1"))
    results = json.loads((run / "all_results.json").read_text())
    assert results["test_mse"] < 1000  # the mean of training: 12,500; at best: 25
    assert results["test_pearson"] > 0.9
    assert results["baselines"]["mean_of_training"]["mse"] > 10_000
    errors = {row["update"]: row["eval_mse"] for row in rows_of(run / "history.jsonl") if "eval_mse" in row}
    assert results["best_update"] == min(errors, key=errors.get) and results["eval_mse"] == min(errors.values())
    assert (run / "training.png").stat().st_size > 1000
    page = (run / "document_0.html").read_text()
    (first, *_), documents = rows_of(run / "predictions.jsonl"), {row["text"]: row["label"] for row in rows_of(prices)}
    assert f"true value {first['reference']:g}" in page
    assert first["reference"] in documents.values() and isinstance(first["prediction"], float)

    main(["evaluate", str(run), f"--output_dir={tmp_path / 'out'}", "--mixed_precision=no"])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["metrics"]["mse"] == pytest.approx(results["test_mse"])
    low, high = found["intervals"]["mse"]
    assert low < results["test_mse"] < high
    model, tokenizer = load_checkpoint(run)
    (answer,) = predict(model, tokenizer, ["a b c goal"])
    assert answer.value == pytest.approx(1000, abs=120)


@pytest.mark.slow
def test_a_rare_class_is_found_where_classes_count_the_same(trained, words_for, complaints):
    answers = {}
    for weights in ("none", "balanced"):
        run = trained(words_for(complaints, "--epochs", "4", "--class_weights", weights))
        answers[weights] = rows_of(run / "predictions.jsonl")
    assert sum(row["prediction"] == "complaint" for row in answers["none"]) < 4
    by_word = [(row["prediction"] == "complaint") == ("bank" in row["text"]) for row in answers["balanced"]]
    assert sum(by_word) > 0.8 * len(by_word)


def test_weights_come_from_yaml_by_name(words_for, complaints, refusal, tmp_path):
    config = tmp_path / "weights.yaml"
    config.write_text("class_weights: {complaint: 9, oter: 1}\n")
    assert_refused(refusal("--config", config, base=words_for(complaints)), "class_weights", "'oter'", "complaint")


@pytest.mark.parametrize(("more", "named"), [
    (["--metric", "mse"], ["metric", "accuracy, f1", "mse"]),
    (["--tune_thresholds", "true"], ["tune_thresholds", "several labels", "classes"]),
    (["--label_smoothing", "1"], ["label_smoothing", "[0, 1)"]),
    (["--class_weights", "heavy"], ["class_weights", "balanced", "'heavy'"]),
    (["--problem_type", "regression", "--class_weights", "balanced"], ["class_weights", "numbers"]),
    (["--problem_type", "regression", "--label_smoothing", "0.1"], ["label_smoothing", "numbers"]),
    (["--problem_type", "regression"], ["number", "document 1", "'sport' (str)"]),
    (["--problem_type", "multi_label_classification"], ["list of labels", "document 1", "'sport' (str)"]),
])  # fmt: skip
def test_what_does_not_fit_the_answers_is_refused(more, named, refusal):
    assert_refused(refusal(*more), *named)


def test_a_summary_is_smoothed_but_not_with_a_copy_head(summary_words, refusal):
    assert_refused(refusal("--label_smoothing", "0.1", base=summary_words), "label_smoothing", "copy_head")


@pytest.mark.parametrize(("more", "named"), [
    ([], "list of labels"),
    (["--problem_type=regression"], "expected problem_type multi_label_classification"),
    (["--task=bbc", "--test_file="], "bbc"),
])  # fmt: skip
def test_data_of_another_kind_than_the_model_has_is_refused(
    more, named, trained, words_for, topics, documents, capsys
):
    run = trained(words_for(topics, *LABELS))
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run), f"--test_file={documents}", *more])
    assert stop.value.code == 2 and named in capsys.readouterr().err.splitlines()[-1]


def test_the_best_checkpoint_is_that_of_the_least_error():
    progress = Progress()
    for update, error in enumerate((3.0, 1.0, 2.0), 1):
        progress.update = update
        progress.judge({"eval_mse": error}, "eval_mse", lower_is_better=True)
    assert (progress.best_update, progress.best, progress.since_best) == (2, {"eval_mse": 1.0}, 1)
