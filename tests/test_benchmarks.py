"""The benchmarks on token vectors drawn here: every row of the table trains, and what should win wins."""

import pytest
import torch
from compare import table
from frozen import Classifier, Split, fit, predict
from variants import NEEDLE_ONLY, VARIANTS

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
    learned, kept = accuracy_and_share(EVERY["successive halving, annealed"], split, epochs=40)
    drawn, drawn_kept = accuracy_and_share(EVERY["random scorer, frozen"], split, epochs=40)
    assert learned > 0.95 > drawn
    assert kept > 0.9 > drawn_kept


def test_the_table_shows_mean_and_spread_over_the_seeds():
    run = {"variant": "a", "k": "8", "f1": 0.5, "train_seconds": 1.6}
    record = {
        "command": "python x.py",
        "device": "a device",
        "torch": "2",
        "runs": [run | {"seed": 0, "accuracy": 0.5}, run | {"seed": 1, "accuracy": 0.7}],
    }
    lines = table(record).splitlines()
    assert lines[0] == "| pooling | k | accuracy | macro-F1 | training s |"
    assert lines[2] == "| a | 8 | 0.600 ± 0.141 | 0.500 ± 0.000 | 2 |"
    assert "seeds 0, 1" in lines[-1] and "`python x.py` on a device" in lines[-1]
