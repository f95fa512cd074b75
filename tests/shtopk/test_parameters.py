"""Scorers learn at a rate of their own, whatever model they stand in."""

import pytest
import torch
from torch import nn

from shtopk import TopKPooling, parameter_groups
from shtopk.integrations.encoder import pool_encoder
from tests.helpers.encoders import build


def test_every_parameter_is_in_one_group_and_scorers_are_apart():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": TopKPooling(4, 2), "c": TopKPooling(4, 2, scorer="mlp")})
    others, scorers = parameter_groups(model, lr=1e-4)
    assert [id(p) for p in others["params"]] == [id(p) for p in model["a"].parameters()]
    expected = [*model["b"].scorer.parameters(), *model["c"].scorer.parameters()]
    assert [id(p) for p in scorers["params"]] == [id(p) for p in expected]
    assert (others["lr"], scorers["lr"], scorers["weight_decay"]) == (1e-4, 1e-2, 0.0)
    assert "weight_decay" not in others  # the optimizer's


def test_the_scorers_between_the_layers_of_an_encoder_are_found():
    model = pool_encoder(build("bert"), {1: 4})
    others, scorers = parameter_groups(model, lr=1e-4, scorer_lr=3e-3)
    assert {name for name, p in model.named_parameters() if any(p is s for s in scorers["params"])} == {
        name for name, _ in model.named_parameters() if ".scorer." in name
    }
    assert len(others["params"]) + len(scorers["params"]) == len(list(model.parameters()))
    torch.optim.AdamW([others, scorers])


def test_what_is_frozen_is_left_out():
    model = nn.ModuleList([nn.Linear(4, 4), TopKPooling(4, 2)])
    model[0].requires_grad_(False)
    (scorers,) = parameter_groups(model, lr=1e-4)
    assert scorers["lr"] == 1e-2
    model[1].requires_grad_(False)
    assert parameter_groups(model, lr=1e-4) == []


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="TopKPooling, got Linear without one"):
        parameter_groups(nn.Linear(4, 4), lr=1e-4)
    for rates in ({"lr": 0.0}, {"lr": 1e-4, "scorer_lr": -1.0}, {"lr": float("nan")}):
        with pytest.raises(ValueError, match="learning rates > 0"):
            parameter_groups(TopKPooling(4, 2), **rates)
