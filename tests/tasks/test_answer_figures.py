"""Figures of sets of labels and of numbers: those of scikit-learn and SciPy, with intervals; thresholds."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

from shtopk.tasks import multi_label_metrics, regression_metrics
from shtopk.tasks.label_report import multi_label_report
from shtopk.tasks.labels import indicators
from shtopk.tasks.number_report import regression_report
from shtopk.tasks.thresholds import best_thresholds

GENERATOR = np.random.default_rng(0)
TRUE = GENERATOR.random((80, 4)) < [0.5, 0.2, 0.1, 0]
SHARES = np.clip(0.3 * TRUE + 0.7 * GENERATOR.random((80, 4)), 0, 1)
SHARES[:, 3] = 0.1  # nobody has the last label, nor gets it


def sets(rows):
    return [np.flatnonzero(row).tolist() for row in rows]


def test_figures_of_sets_are_those_of_scikit_learn():
    given = SHARES >= 0.5
    results = multi_label_metrics(sets(given), sets(TRUE))
    assert results["f1_micro"] == pytest.approx(f1_score(TRUE, given, average="micro"))
    assert results["f1"] == pytest.approx(f1_score(TRUE[:, :3], given[:, :3], average="macro"))
    assert results["accuracy"] == (given == TRUE).all(1).mean()
    assert multi_label_metrics([[], []], [[], []]) == {"f1_micro": 1, "f1": 1, "accuracy": 1}
    assert multi_label_metrics([[0], []], [[], [1]]) == {"f1_micro": 0, "f1": 0, "accuracy": 0}


def test_the_report_on_labels_has_figures_for_each_and_intervals_around_all():
    given = SHARES >= 0.5
    report, _ = multi_label_report(sets(given), sets(TRUE), SHARES, list("abcd"))
    columns = precision_recall_fscore_support(TRUE, given, zero_division=0)
    for i, row in enumerate(report["classes"].values()):
        assert list(row.values()) == pytest.approx([column[i] for column in columns])
    assert report["metrics"]["auroc"] == pytest.approx(
        np.mean([roc_auc_score(TRUE[:, i], SHARES[:, i]) for i in range(3)])
    )
    for name, (low, high) in report["intervals"].items():
        assert low < report["metrics"][name] < high


def parts(given, true=TRUE):
    return multi_label_report(sets(given), sets(true), SHARES[: len(true)], list("abcd"))[1]


def test_the_scores_of_documents_have_the_micro_f1_as_their_mean():
    for least in (0.2, 0.5, 0.95):
        given = least <= SHARES
        assert np.mean(parts(given)) == pytest.approx(f1_score(TRUE, given, average="micro"))
    nothing = np.zeros_like(TRUE)
    assert (~TRUE.any(1)).any() and parts(nothing) == [0] * len(TRUE)  # though some are rightly left without a label
    assert parts(TRUE) == parts(nothing, nothing) == [1] * len(TRUE)


def test_the_scores_of_documents_that_are_drawn_follow_their_micro_f1():
    def differences(count=400):
        ways = [least <= SHARES for least in (0.3, 0.5)]
        scores = np.subtract(*map(parts, ways))
        for _ in range(count):
            drawn = GENERATOR.integers(len(TRUE), size=len(TRUE))
            exact = [f1_score(TRUE[drawn], given[drawn], average="micro") for given in ways]
            yield exact[0] - exact[1], scores[drawn].mean()

    exact, linear = np.transpose(list(differences()))
    assert np.corrcoef(exact, linear)[0, 1] > 0.98
    assert np.quantile(linear, [0.025, 0.975]) == pytest.approx(np.quantile(exact, [0.025, 0.975]), abs=0.01)


def test_figures_of_numbers_are_those_of_scipy():
    true = GENERATOR.normal(size=50)
    given = np.round(true + GENERATOR.normal(size=50), 1)  # some are equal
    results = regression_metrics(given.tolist(), true.tolist())
    assert results == pytest.approx({
        "mse": np.mean((given - true) ** 2), "mae": np.mean(np.abs(given - true)),
        "pearson": stats.pearsonr(given, true).statistic, "spearman": stats.spearmanr(given, true).statistic,
    })  # fmt: skip
    report, of_documents = regression_report(given, true)
    assert report["metrics"] == pytest.approx(results)
    assert all(low < results[name] < high for name, (low, high) in report["intervals"].items())
    assert -np.mean(of_documents) == pytest.approx(results["mse"])


def test_equal_numbers_have_no_correlation_and_no_nan():
    assert regression_metrics([0.1] * 3, [1.0, 2.0, 4.0])["pearson"] == 0
    assert regression_metrics([1.0], [1.0]) == {"mse": 0, "mae": 0, "pearson": 0, "spearman": 0}


def test_thresholds_are_the_best_there_are():
    found = best_thresholds(SHARES, sets(TRUE))
    for i, threshold in enumerate(found[:3]):
        best = max(f1_score(TRUE[:, i], SHARES[:, i] >= cut) for cut in SHARES[:, i])
        assert f1_score(TRUE[:, i], SHARES[:, i] >= threshold) == pytest.approx(best)
        assert 0 < threshold < 1 and threshold not in SHARES[:, i]
    assert found[3] == 0.5  # nothing to choose by


@pytest.mark.parametrize(("shares", "labels", "threshold"), [
    ([0.9, 0.8, 0.1], [1, 1, 0], 0.5),  # nothing speaks against it
    ([0.4, 0.3, 0.1], [1, 1, 0], 0.2),
    ([0.9, 0.8, 0.6], [1, 0, 0], 0.85),
    ([0.3, 0.3, 0.1], [1, 0, 0], 0.2),  # equal ones cannot be told apart
    ([0.0, 0.0], [1, 0], 0.5),
])  # fmt: skip
def test_a_threshold_lies_between_two_documents(shares, labels, threshold):
    assert best_thresholds([[p] for p in shares], [[0] * one for one in labels])[0] == pytest.approx(threshold)


def test_indicators_have_a_column_for_every_label():
    assert indicators([[1], [], [0, 1]], 3).tolist() == [[False, True, False], [False] * 3, [True, True, False]]
