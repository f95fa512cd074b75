"""The teacher of a scorer: the attention that an encoder pays, and what is learned from it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from frozen import Classifier, Split, fit, with_attention
from rivals.teacher import attention_loss, paid_attention, teach
from transformers import BertConfig, BertModel
from variants import RIVAL_ROWS

from shtopk.models import default_encoder
from shtopk.scorers import ScorerLinear

D, K = 6, 3


def test_the_attention_loss_is_the_divergence_from_the_attention_over_real_tokens():
    scores, attention = torch.randn(3, 6, requires_grad=True), torch.rand(3, 6)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 4:], mask[2] = False, False
    paid = [attention[0] / attention[0].sum(), attention[1, :4] / attention[1, :4].sum()]
    shares = [scores[0].log_softmax(0), scores[1, :4].log_softmax(0)]
    expected = sum(F.kl_div(share, one, reduction="sum") for share, one in zip(shares, paid, strict=True)) / 2
    loss = attention_loss(scores, attention, mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert scores.grad.isfinite().all() and not scores.grad[~mask].any()
    assert attention_loss(attention.log(), attention, mask).abs() < 1e-6


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=30, max_position_embeddings=32, **sizes, attn_implementation="eager")
    return BertModel(config).eval()


def test_the_attention_paid_is_that_of_the_first_token_over_the_heads(encoder):
    ids, mask = torch.randint(1, 30, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    attentions = encoder(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    torch.testing.assert_close(paid_attention(encoder, ids, mask), attentions[-1][:, :, 0].mean(1))
    by_all = paid_attention(encoder, ids, mask, layer=0, by="all")
    torch.testing.assert_close(by_all[1, :6], attentions[0][1, :, :6, :6].mean((0, 1)))
    assert not by_all[1, 6:].any()


def test_a_document_longer_than_the_window_is_paid_window_by_window(encoder):
    ids, mask = torch.randint(1, 30, (1, 39)), torch.ones(1, 39, dtype=torch.long)
    parts = [paid_attention(encoder, ids[:, part], mask[:, part]) for part in (slice(0, 20), slice(20, 39))]
    expected = torch.cat([parts[0] * 20 / 39, parts[1] * 19 / 39], 1)
    torch.testing.assert_close(paid_attention(encoder, ids, mask, window=20), expected)


def test_an_encoder_that_keeps_its_attention_to_itself_is_refused():
    other = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    with pytest.raises(ValueError, match=r"attn_implementation=.eager., which returns its attention, got 'sdpa'"):
        paid_attention(other, torch.ones(1, 2), torch.ones(1, 2))


def test_a_scorer_learns_whom_the_attention_is_paid_to():
    torch.manual_seed(0)
    values, mask = torch.randn(4, 20, D), torch.ones(4, 20, dtype=torch.bool)
    attention = (3 * values[..., 1]).softmax(-1)
    scorer = ScorerLinear(D, 1)
    losses = teach(scorer, [(values, attention, mask)] * 150, learning_rate=0.1)
    assert losses[-1] < 0.01 < 0.1 < losses[0]
    assert scorer.weight[0, 1] > 2


@pytest.fixture(scope="module")
def split():
    """Random documents; the attention to a token grows with the second number of its vector."""
    torch.manual_seed(0)
    lengths = torch.randint(1, 15, (40,))
    total = int(lengths.sum())
    values, evidence = torch.randn(total, D), torch.zeros(total, dtype=torch.bool)
    return Split(values, evidence, lengths, torch.arange(40) % 2, attention=(3 * values[:, 1]).exp())


def test_a_row_that_is_taught_keeps_what_attention_is_paid_to(split):
    (variant,) = (row for row in RIVAL_ROWS if row.kind == "taught")
    torch.manual_seed(0)
    classifier = Classifier(D, 2, K, variant)
    fit(classifier, split, seed=0, scorer_learning_rate=0.3, epochs=60)
    weight = classifier.pooling.scorer.weight[0]
    assert weight[1] > 2 and weight[[0, 2, 3, 4, 5]].abs().max() < 0.5


def test_the_attention_of_a_split_is_kept_beside_its_vectors(tmp_path):
    texts = Dataset.from_dict({"text": ["one two three", "four " * 300]})
    lengths = torch.tensor([5, 302])
    split = Split(torch.zeros(307, D), torch.zeros(307, dtype=torch.bool), lengths, torch.zeros(2))
    found = with_attention("some", texts, split, default_encoder(), tmp_path)
    sums = [part.sum() for part in found.attention.split(lengths.tolist())]
    torch.testing.assert_close(torch.stack(sums), torch.ones(2))
    again = with_attention("some", texts, split, tmp_path / "nowhere", tmp_path)
    assert torch.equal(again.attention, found.attention)
