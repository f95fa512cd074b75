"""Batches with padding, before a pooled language model: each prompt is read as if it were alone."""

import pytest
import torch
from decoders import CLOSE, NAMES, build, marks, padded, tokens
from transformers import (
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.decoders.layout import Layout, pool
from shtopk.operators import OPERATORS
from shtopk.pooling import TopKPooling

ALL = pytest.mark.parametrize("name", NAMES)
SHORT, LONG = tokens(1, 17, seed=3), tokens(1, 24, seed=4)
GENERATE = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def logits_of(model, ids, mask, **more):
    out = model.generate(ids, attention_mask=mask, **GENERATE, **more)
    return torch.stack(out.logits, 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@ALL
def test_generation_with_padding_on_the_left_is_that_of_each_prompt_alone(name, attention):
    """The shorter one has fewer tokens than k: a row without empty slots beside one with some."""
    model = pool_decoder(build(name, attention), {1: 20, 2: 6}, keep_last=2)
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, left=7), padded(LONG), strict=True))
    both = logits_of(model, ids, mask)
    for row, alone in enumerate((SHORT, LONG)):
        torch.testing.assert_close(both[row], logits_of(model, alone, torch.ones_like(alone))[0], **CLOSE)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_prompt_that_fits_into_k_passes_as_it_is_beside_one_that_does_not(operator):
    plain, model = build(), pool_decoder(build(), {1: 18, 2: 17}, operator=operator)
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, left=7), padded(LONG), strict=True))
    both, alone = logits_of(model, ids, mask), logits_of(plain, SHORT, torch.ones_like(SHORT))
    torch.testing.assert_close(both[0], alone[0], **CLOSE)


@ALL
def test_a_pass_with_padding_on_the_right_is_that_of_each_text_alone(name):
    model = pool_decoder(build(name), {1: 20, 2: 6})
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, right=7), padded(LONG), strict=True))
    labels = ids.masked_fill((torch.arange(24) < 12) | (ids == 0), -100)
    with torch.no_grad():
        both = model(ids, attention_mask=mask, labels=labels).logits
        for row, alone in enumerate((SHORT, LONG)):
            n = alone.shape[1]
            expected = model(alone, compress_mask=marks(alone, 11)).logits
            torch.testing.assert_close(both[row, 11:n], expected[0, 11:], **CLOSE)


def test_given_positions_are_those_of_the_tokens():
    """Shifted rotary positions say the same, wherever the padding is."""
    model = pool_decoder(build(), {2: 6})
    right, mask = padded(SHORT, right=5)
    with torch.no_grad():
        alone = model(SHORT, k=6).logits[:, -1]
        ids, left = padded(SHORT, left=5)
        shifted = model(ids, attention_mask=left, position_ids=torch.arange(22)[None] + 3).logits[:, -1]
        trailing = model(right, attention_mask=mask, position_ids=torch.arange(22)[None]).logits[:, 16]
        counted = (left.cumsum(-1) - 1).clamp(min=0)
        by_mask = model(ids, attention_mask=left, position_ids=counted).logits[:, -1]
    for said in (shifted, trailing, by_mask):
        torch.testing.assert_close(said, alone, **CLOSE)


def test_a_row_of_padding_alone_is_no_number_problem():
    model = pool_decoder(build(), {2: 6}).train()
    ids, mask = (torch.cat(both) for both in zip(padded(LONG), padded(LONG), strict=True))
    mask[1] = 0
    labels = ids.masked_fill((torch.arange(24) < 12) | (mask == 0), -100)
    logits = model(ids, attention_mask=mask, labels=labels).logits
    logits[0].sum().backward()
    assert logits.isfinite().all()
    assert all(x.grad is None or x.grad.isfinite().all() for x in model.parameters())


def test_what_stands_in_padding_reaches_no_layer_above():
    pooling = TopKPooling(4, 3, operator="hard", protected=(0,))
    real = torch.tensor([[True] * 9, [False] * 4 + [True] * 5])
    vectors = torch.randn(2, 9, 4).masked_fill(~real[..., None], torch.inf)
    after, layout, _ = pool(pooling, vectors, Layout.of_prompt(real, torch.tensor([1] * 6 + [0] * 3).expand(2, -1)))
    assert layout.real.tolist() == [[True] * 6, [True] * 5 + [False]]
    assert after.isfinite().all() and not after[1, 5].any() and after[1, :5].any(-1).all()


def test_rows_with_fewer_tokens_than_k_keep_them_all():
    model = pool_decoder(build(), {2: 20})
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, left=7), padded(LONG), strict=True))
    with torch.no_grad():
        out = model(ids, attention_mask=mask, use_cache=True)
    assert (out.past_key_values.layers[2].places >= 0).sum(1).tolist() == [17, 21]


@pytest.mark.parametrize("kind", [LlamaForSequenceClassification, GPT2ForSequenceClassification])
def test_a_row_is_classified_by_its_last_token_that_is_not_padding_without_a_mask_too(kind):
    name = kind.config_class.model_type
    model = pool_decoder(kind(build(name).config).eval(), {1: 6})
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, right=7), padded(LONG), strict=True))
    with torch.no_grad():
        alone = torch.cat([model(SHORT).logits, model(LONG).logits])
        for given in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids}):
            torch.testing.assert_close(model(**given).logits, alone, **CLOSE)
        torch.testing.assert_close(model(ids).logits, alone, **CLOSE)


@pytest.mark.parametrize("k", [6, 30])  # the texts are pooled, and pass as they are
@pytest.mark.parametrize("kind", [LlamaForSequenceClassification, GPT2ForSequenceClassification])
def test_a_text_that_ends_with_the_id_of_padding_is_classified_by_the_token_before_it(kind, k):
    """As by transformers, where padding is the token that ends a text."""
    plain = kind(build(kind.config_class.model_type).config).eval()
    plain.config.pad_token_id = SHORT[0, -1].item()
    assert plain.config.pad_token_id not in LONG[0]
    ids, mask = (torch.cat(both) for both in zip(padded(SHORT, right=7), padded(LONG), strict=True))
    ids = ids.masked_fill(mask == 0, plain.config.pad_token_id)
    with torch.no_grad():
        unpooled = plain(ids, attention_mask=mask).logits
        model = pool_decoder(plain, {1: k})
        alone = torch.cat([model(SHORT[:, :-1]).logits, model(LONG).logits])
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, alone, **CLOSE)
    assert (k == 30) == torch.allclose(alone, unpooled, **CLOSE)


class MeanForSequenceClassification(LlamaPreTrainedModel):
    """A head of one's own, which looks for no end."""

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        vectors = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=vectors.mean(1))


def test_a_head_of_ones_own_sees_a_text_that_fits_into_k_as_it_is():
    plain = MeanForSequenceClassification(build().config).eval()
    plain.config.pad_token_id = SHORT[0, -1].item()
    with torch.no_grad():
        expected = plain(SHORT, attention_mask=torch.ones_like(SHORT)).logits
        found = pool_decoder(plain, {1: 30})(SHORT, attention_mask=torch.ones_like(SHORT)).logits
    torch.testing.assert_close(found, expected, **CLOSE)


def test_without_a_mask_a_token_inside_a_text_is_read_though_it_has_the_id_of_padding():
    model = pool_decoder(LlamaForSequenceClassification(build().config).eval(), {1: 6})
    with torch.no_grad():
        expected = model(LONG).logits
        model.config.pad_token_id = LONG[0, 10].item()
        assert model.config.pad_token_id not in (LONG[0, 0], LONG[0, -1])
        torch.testing.assert_close(model(LONG).logits, expected, **CLOSE)
