"""What the logits of a classifier say: by its problem_type a class, the labels that hold, or numbers."""

import pytest
import torch
from transformers import BertConfig

from shtopk.models.answers import Answer, Named, answers, probabilities, problem_type

NAMES = {0: "sport", 1: "money", 2: "law"}
LOGITS = torch.tensor([[4.0, 4.5, -4.0], [-1.0, -3.0, -2.0]])
MANY, NUMBERS = "multi_label_classification", "regression"


def config(kind, names=NAMES):
    return BertConfig(id2label=names, problem_type=kind)


def said(kind, logits=LOGITS):
    return [str(answer) for answer in answers(logits, config(kind))]


def predicted(kind):
    return [answer.prediction for answer in answers(LOGITS, config(kind))]


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_configuration_that_does_not_say_means_what_transformers_losses_take_it_for(outputs):
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    silent, trained = BertConfig(num_labels=outputs), BertConfig(num_labels=outputs)
    labels = torch.zeros(2, dtype=torch.float if outputs == 1 else torch.long)
    ForSequenceClassificationLoss(labels, torch.zeros(2, outputs), trained)
    assert problem_type(silent) == trained.problem_type == problem_type(trained)


def test_an_unknown_kind_is_refused():
    unknown = config(None)
    unknown.problem_type = "ranking"
    with pytest.raises(ValueError, match=r"expected a problem_type of .* or regression, got 'ranking'"):
        problem_type(unknown)


def test_of_one_label_the_probabilities_share_what_of_several_each_has_for_itself():
    assert probabilities(LOGITS, config(None)).sum(-1).tolist() == pytest.approx([1, 1])
    several = probabilities(LOGITS, config(MANY))
    torch.testing.assert_close(several, 1 / (1 + (-LOGITS).exp()))
    with pytest.raises(ValueError, match="one of regression; its logits are the answer"):
        probabilities(LOGITS, config(NUMBERS))


@pytest.mark.parametrize("kind", [None, MANY])
def test_half_precision_does_not_round_probabilities(kind):
    half = LOGITS.bfloat16()  # which holds these exactly
    torch.testing.assert_close(probabilities(half, config(kind)), probabilities(LOGITS, config(kind)))
    assert probabilities(LOGITS.double(), config(kind)).dtype == torch.float64


def test_a_class_is_named_with_its_probability():
    assert said(None) == ["money (62.2 %)", "sport (66.5 %)"]
    assert predicted(None) == ["money", "sport"]


def test_all_labels_that_hold_are_named_the_likeliest_first_or_that_none_does():
    assert said(MANY) == ["money (98.9 %), sport (98.2 %)", "none of the labels (highest: sport 26.9 %)"]
    assert predicted(MANY) == [["money", "sport"], []]


def test_a_label_holds_from_one_half_on():
    assert answers(torch.tensor([[0.0, -1e-3, 1e-3]]), config(MANY))[0].prediction == ["law", "sport"]


def test_a_number_is_said_as_it_is_and_several_with_their_names():
    (one,) = answers(torch.tensor([[3.7]], dtype=torch.bfloat16).float(), config(NUMBERS, {0: "stars"}))
    assert str(one) == "3.70312" and one.prediction == 3.703125
    assert said(NUMBERS) == ["sport 4, money 4.5, law -4", "sport -1, money -3, law -2"]
    assert predicted(NUMBERS)[1] == {"sport": -1, "money": -3, "law": -2}


@pytest.mark.parametrize("kind", [None, MANY, NUMBERS])
def test_the_values_stand_in_the_order_of_the_logits(kind):
    expected = LOGITS if kind == NUMBERS else probabilities(LOGITS, config(kind))
    for answer, row in zip(answers(LOGITS, config(kind)), expected.tolist(), strict=True):
        assert answer == Answer(problem_type(config(kind)), tuple(map(Named, NAMES.values(), row)))
