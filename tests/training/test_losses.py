"""What training minimises: class weights, smoothed labels, numbers; the same however a batch is cut."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from transformers.trainer_pt_utils import LabelSmoother

from shtopk.training.batches import items_of
from shtopk.training.class_weights import as_word, read_weights
from shtopk.training.losses import ClassLoss, LabelLoss, NumberLoss, class_weights, label_weights, smoothed

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(7, 3, generator=DRAW)
CLASSES = torch.tensor([0, 2, 2, 1, 2, 2, 0])
SETS = (torch.rand(7, 3, generator=DRAW) > 0.5).float()
NUMBERS = torch.randn(7, generator=DRAW) * 40 - 100  # some of which are near the -100 of ignored tokens
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])


@pytest.mark.parametrize(("loss", "logits", "labels"), [
    (ClassLoss(WEIGHTS, 0.1), LOGITS, CLASSES),
    (LabelLoss(WEIGHTS, 0.1), LOGITS, SETS),
    (NumberLoss(40.0), LOGITS[:, :1], torch.cat([NUMBERS[:6], torch.tensor([-100.0])])),
], ids=["classes", "labels", "numbers"])  # fmt: skip
def test_micro_batches_of_any_size_have_the_loss_of_the_whole(loss, logits, labels):
    whole = loss(labels, logits, None)
    parts = [(labels[start:end], logits[start:end]) for start, end in ((0, 1), (1, 5), (5, 7))]
    total = items_of(labels)
    cut = sum(loss(truth, given, None) * items_of(truth) / total for truth, given in parts)
    torch.testing.assert_close(cut, whole)


def test_a_document_counts_as_much_as_its_class_weighs():
    each = functional.cross_entropy(LOGITS, CLASSES, reduction="none")
    torch.testing.assert_close(ClassLoss(WEIGHTS)(CLASSES, LOGITS, None), (each * WEIGHTS[CLASSES]).mean())
    torch.testing.assert_close(ClassLoss()(CLASSES, LOGITS, None), functional.cross_entropy(LOGITS, CLASSES))


def test_a_label_counts_as_much_as_it_weighs_where_it_is_true():
    loss = functional.binary_cross_entropy_with_logits(LOGITS, SETS, pos_weight=WEIGHTS)
    torch.testing.assert_close(LabelLoss(WEIGHTS)(SETS, LOGITS, None), loss)
    soft = functional.binary_cross_entropy_with_logits(LOGITS, SETS * 0.8 + 0.1)
    torch.testing.assert_close(LabelLoss(None, 0.2)(SETS, LOGITS, None), soft)


def test_smoothing_does_not_make_a_rare_label_true_where_it_is_not():
    rare, absent = LabelLoss(torch.tensor([99.0]), 0.1), torch.zeros(1000, 1)
    losses = [rare(absent, torch.full((1000, 1), logit), None) for logit in (-3.0, 0.0, 3.0)]
    assert losses[0] < losses[1] < losses[2]


def test_numbers_have_a_loss_in_units_of_their_variance():
    std = NUMBERS.std(correction=0)
    at_the_mean = NumberLoss(std.item())(NUMBERS, NUMBERS.mean().expand(7, 1), None)
    assert at_the_mean.item() == pytest.approx(1)


def test_smoothed_targets_of_summaries_are_those_of_transformers():
    logits = torch.randn(2, 5, 11, generator=DRAW)
    labels = torch.randint(11, (2, 5), generator=DRAW)
    labels[1, 3:] = -100
    loss = functional.cross_entropy(logits.view(-1, 11), labels.view(-1))
    expected = LabelSmoother(epsilon=0.1)({"logits": logits}, labels.clone())
    torch.testing.assert_close(smoothed(loss, logits, labels, 0.1), expected)


def test_balanced_weights_are_those_of_scikit_learn_and_given_ones_have_a_mean_of_1():
    labels, names = [0] * 6 + [1] * 3 + [2], ["a", "b", "c"]
    balanced = class_weights("balanced", names, [6, 3, 1], 10)
    assert balanced == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=labels).tolist())
    given = class_weights({"c": 5.0}, names, [6, 3, 1], 10)
    assert given[0] == given[1] == given[2] / 5
    assert sum(given[label] for label in labels) == pytest.approx(10)
    assert label_weights("balanced", names, [5, 10, 1], 10) == [1, 0.1, 9]
    for weigh in (class_weights, label_weights):
        with pytest.raises(ValueError, match=r"labels that training has \('a', 'b', 'c'\), got 'd'"):
            weigh({"d": 1.0}, names, [6, 3, 1], 10)


def test_weights_are_read_from_words_and_from_yaml():
    assert read_weights("spam:5, a:b:0.5") == {"spam": 5.0, "a:b": 0.5}
    assert read_weights(as_word({"a, b": 2, 1: 3.5})) == {"a, b": 2.0, "1": 3.5}


@pytest.mark.parametrize(
    "text", ["spam", "spam:", "spam:-1", "spam:nan", "spam:0", ":1", "a:1,a:2", "{", '{"a": []}', "{" * 9999]
)
def test_weights_that_cannot_be_read_are_refused(text):
    with pytest.raises(ValueError, match="expected class_weights to be balanced, or like spam:5,ham:1"):
        read_weights(text)
