"""torch.export keeps the number of documents and their length open, alone, in a model and between layers."""

import pytest
import torch
from encoders import CONFIGS, V
from torch import nn
from transformers import AutoModelForSequenceClassification

from shtopk import TopKPooling
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification

OPEN = {0: torch.export.Dim("B", min=2, max=64), 1: torch.export.Dim("n", min=10, max=70)}


class Answer(nn.Module):
    """A model with tensors as its inputs and its output, as a program has."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model.eval(), name

    def forward(self, ids, mask):
        return getattr(self.model(input_ids=ids, attention_mask=mask), self.name)


def two_layers(kind):
    return type(CONFIGS[kind]).from_dict(CONFIGS[kind].to_dict() | {"num_hidden_layers": 2, "layer_types": None})


def documents(size, n):
    generator = torch.Generator().manual_seed(n)
    mask = torch.arange(n) < torch.randint(9, n + 1, (size, 1), generator=generator)
    return torch.randint(4, V, mask.shape, generator=generator) * mask, mask.long()


def check(module):
    (ids, mask), other = documents(2, 20), documents(5, 40)
    program = torch.export.export(module, (ids, mask), dynamic_shapes=(OPEN, OPEN)).module()
    torch.testing.assert_close(program(*other), module(*other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("operator", "protected"), [
    ("successive_halving", ()), ("iterative", ()), ("hard_gated", ()), ("select_and_merge", (0, -1)),
])  # fmt: skip
def test_a_pooling_is_exported(operator, protected):
    pooling = TopKPooling(8, 4, operator=operator, eval_operator=operator, protected=protected).eval()
    torch.manual_seed(0)
    vectors, others = torch.randn(3, 20, 8), torch.randn(5, 33, 8)
    program = torch.export.export(pooling, (vectors, torch.ones(3, 20)), dynamic_shapes=(OPEN, OPEN)).module()
    mask = (torch.arange(33) < torch.tensor([[33], [20], [9], [2], [0]])).float()
    torch.testing.assert_close(program(others, mask)[0], pooling(others, mask)[0])


def test_a_classifier_is_exported():
    torch.manual_seed(0)
    model = TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=two_layers("bert"), k=4))
    check(Answer(model, "logits"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_a_classifier_that_pools_between_its_layers_is_exported(kind):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(two_layers(kind))
    check(Answer(pool_encoder(model, {1: 8}), "logits"))
