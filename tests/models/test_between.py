"""The models here with an encoder that pools between its layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from encoders import with_holes
from seq2seq_families import FAMILIES, V, documents
from seq2seq_families import build as build_seq2seq
from tiny import BERT
from transformers import AutoModel, BertConfig

from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification
from shtopk.pooling import ScorerLinear

FOUR_LAYERS = BertConfig(**BERT | {"num_hidden_layers": 4, "max_position_embeddings": 40})


def build(**fields):
    torch.manual_seed(0)
    options = {"k": 4, "k_by_layer": {1: 9, 2: 6}} | fields
    config = TopKPoolingConfig(backbone=FOUR_LAYERS.to_dict(), num_labels=3, **options)
    return TopKPoolingForSequenceClassification(config).eval()


def test_the_encoder_gets_shorter_on_the_way():
    model, seen = build(), []
    for layer in model.backbone.encoder.layer:
        layer.register_forward_hook(lambda layer, given, output: seen.append(output[0].shape[-2]))
    model(**documents(30, 12))
    assert seen == [30, 9, 6, 6]


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard_gated"])
@pytest.mark.parametrize("fields", [{}, {"window_k": 5}], ids=["window by window", "in three steps"])
def test_a_long_document_does_not_depend_on_what_it_is_batched_with(operator, fields):
    model, batch = build(operator=operator, temperature=0.5, **fields), documents(100, 12, 0)
    together = model(**batch)
    for row, length in ((0, 100), (1, 12)):
        alone = model(**{name: x[row : row + 1, :length] for name, x in batch.items()})
        torch.testing.assert_close(together.logits[row : row + 1], alone.logits)
    assert not together.pooled_attention_mask[2].any()
    assert together.logits.isfinite().all()


@pytest.mark.parametrize("fields", [
    {"k": 0.2, "k_by_layer": None}, {"k": 0.2, "k_by_layer": None, "window_k": 30}, {"k": 4, "k_by_layer": {1: 0.5}},
    {"k": 0.1, "k_by_layer": {1: 0.5, 2: 0.5}}, {"k": 0.1, "k_by_layer": {1: 0.5}, "window_k": 15},
], ids=str)  # fmt: skip
def test_a_share_is_one_of_a_documents_own_tokens_in_however_many_steps(fields):
    model, batch, lengths = build(**fields), documents(100, 12, 39), (100, 12, 39)
    together = model(**batch)
    for row, length in enumerate(lengths):
        alone = model(**{name: x[row : row + 1, :length] for name, x in batch.items()})
        torch.testing.assert_close(together.logits[row : row + 1], alone.logits)
        kept = 4 if fields["k"] == 4 else math.ceil(fields["k"] * length)
        assert together.pooled_attention_mask[row].sum() == alone.pooled_attention_mask.sum() == kept


def test_with_hidden_states_a_document_is_pooled_to_the_same_share():
    model, batch = build(k=0.2, k_by_layer={1: 0.5}), documents(30, 12)
    torch.testing.assert_close(model(**batch, output_hidden_states=True).logits, model(**batch).logits)


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard_gated"])
@pytest.mark.parametrize("fields", [{}, {"window_k": 5}, {"window_k": 5, "k_by_layer": None}], ids=str)
def test_a_document_that_fits_is_pooled_as_one_window_that_was_cut(operator, fields):
    model, whole = build(operator=operator, temperature=0.5, **fields), with_holes(36, 30, 12, 20, words=V)
    whole["attention_mask"][1] = 0
    cut = model(**{name: F.pad(x, (7, 30)) for name, x in whole.items()})  # more than the 40 positions of a window
    out = model(**whole)
    torch.testing.assert_close(out.pooled_hidden_states, cut.pooled_hidden_states)
    torch.testing.assert_close(out.assignment.dense(), cut.assignment.dense()[..., 7:43])
    assert out.pooled_attention_mask.equal(cut.pooled_attention_mask)
    assert out.positions.equal((cut.positions - 7) * cut.pooled_attention_mask)
    assert not out.pooled_attention_mask[1].any()


def test_the_output_says_which_tokens_its_vectors_are_made_of():
    model, batch = build(temperature=1.0), documents(30, 12)
    out = model(**batch)
    assert out.assignment.weights.shape == out.assignment.slots.shape == (2, 30)
    torch.testing.assert_close(out.assignment.dense().sum(-1), torch.ones(2, 4))
    assert (out.assignment.slots[batch["attention_mask"] == 0] == -1).all()
    with_states = model(**batch, output_hidden_states=True)
    torch.testing.assert_close(with_states.assignment.weights, out.assignment.weights)
    assert with_states.assignment.positions.equal(out.assignment.positions)
    assert [x.shape[1] for x in with_states.hidden_states] == [30, 30, 9, 6, 6]


def test_every_scorer_learns():
    model = build().train()
    loss = model(**documents(30, 12), labels=torch.tensor([0, 1])).loss
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if "scorer.weight" in name}
    assert len(grads) == 3 and all(grad.abs().sum() > 0 for grad in grads.values())


def test_it_loads_around_a_bare_encoder_and_its_scorers_start_with_spread(tmp_path):
    AutoModel.from_config(FOUR_LAYERS).save_pretrained(tmp_path / "bare")
    options = {"k": 4, "k_by_layer": {"2": 6}, "num_labels": 3}
    model = TopKPoolingForSequenceClassification.from_backbone(tmp_path / "bare", **options).eval()
    assert "backbone.encoder.pooling.2.scorer.weight" in model.new_parameters
    for scorer in model.modules():
        if isinstance(scorer, ScorerLinear):
            assert 0.1 < scorer.weight.std() < 0.3  # 32 ** -0.5, not the encoder's 0.02
    model.save_pretrained(tmp_path / "saved")
    loaded = TopKPoolingForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    batch = documents(30, 12)
    assert loaded(**batch).logits.equal(model(**batch).logits)


@pytest.mark.parametrize("copy_head", [False, True])
@pytest.mark.parametrize(
    ("family", "layers"), [("bart", {"encoder_layers": 3}), ("t5", {"num_layers": 3}), ("encoder-decoder", {})]
)
def test_summaries_are_generated(family, layers, copy_head, monkeypatch):
    for name, value in layers.items():
        monkeypatch.setattr(FAMILIES[family], name, value)
    model = build_seq2seq(family, k=4, k_by_layer={1: 9}, window=16, copy_head=copy_head)
    batch = documents(50, 12)
    assert model.generate(**batch, max_new_tokens=4, min_new_tokens=4, num_beams=2).shape == (2, 5)
    labels = torch.randint(4, V, (2, 5))
    together = model(**batch, labels=labels)
    alone = model(**{name: x[1:, :12] for name, x in batch.items()}, labels=labels[1:])
    torch.testing.assert_close(together.logits[1:], alone.logits, atol=1e-5, rtol=1e-5)
    model.train()
    model(**batch, labels=labels).loss.backward()
    assert all(p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "scorer.weight" in name)
