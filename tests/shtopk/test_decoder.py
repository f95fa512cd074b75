"""Causal language models whose prompts are pooled between their layers: what every family promises."""

import copy

import pytest
import torch
from decoders import CLOSE, HARD, NAMES, build, marks, places, seen, tokens, with_holes

from shtopk.integrations.decoder import pool_decoder

ALL = pytest.mark.parametrize("name", NAMES)
ATTENTION = pytest.mark.parametrize("attention", ["sdpa", "eager"])
IDS = tokens()
N = IDS.shape[1]
NO_GRAD = torch.no_grad()


@ATTENTION
@ALL
def test_a_prompt_of_no_more_than_k_tokens_passes_unchanged_bit_for_bit(name, attention):
    model = build(name, attention)
    with NO_GRAD:
        expected = model(IDS).logits
        pool_decoder(model, {2: N - 1, 3: N - 2}, keep_last=2)  # 22 to pool at most
        out = model(IDS, use_cache=True)
    assert out.logits.equal(expected)
    assert type(out.past_key_values.layers[3]).__name__.startswith("Dynamic")


@ATTENTION
@ALL
def test_a_hard_choice_equals_a_mask_with_holes(name, attention):
    """Also after two stages: rotary, learned and absent positions follow the tokens, and windows count columns."""
    plain = build(name, attention)
    model = pool_decoder(copy.deepcopy(plain), {1: 14, 2: 6}, keep_last=3, **HARD)
    with NO_GRAD:
        out = model(IDS, use_cache=True)
    below, kept = (seen(out.past_key_values, layer, N) for layer in (1, 3))
    assert (below.sum(1) == 17).all() and (kept.sum(1) == 9).all()
    open_to = {1: below, 2: kept, 3: kept}
    expected = with_holes(plain, IDS, open_to)
    torch.testing.assert_close(out.logits[kept], expected[kept], **CLOSE)
    with NO_GRAD:
        assert not out.logits[kept].allclose(plain(IDS).logits[kept], atol=1e-2)


@ATTENTION
@ALL
def test_generation_step_by_step_says_what_one_pass_over_all_does(name, attention):
    model = pool_decoder(build(name, attention), {1: 10, 3: 4}, keep_last=2)
    out = model.generate(IDS, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True)
    whole = out.sequences
    with NO_GRAD:
        logits = model(whole, compress_mask=marks(whole, N - 2)).logits
    torch.testing.assert_close(torch.stack(out.logits, 1), logits[:, N - 1 : -1], **CLOSE)
    assert [places(out.past_key_values, layer).shape[1] for layer in (1, 3)] == [17, 11]  # 5 tokens were read


@ALL
def test_what_follows_changes_nothing_that_was_chosen_or_said_before(name):
    model = pool_decoder(build(name), {1: 8, 2: 5}, temperature=0.7)
    longer, at = tokens(n=N + 8, seed=1), N + 4
    other = longer.clone()
    other[:, at:] = tokens(n=4, seed=2)
    with NO_GRAD:
        first, second = (model(ids, compress_mask=marks(ids, N - 1), use_cache=True) for ids in (longer, other))
        alone = model(longer[:, :at], compress_mask=marks(longer, N - 1, at), use_cache=True)
    assert first.logits[:, :at].equal(second.logits[:, :at]) and not first.logits[:, at:].equal(second.logits[:, at:])
    assert places(first.past_key_values, 3).equal(places(second.past_key_values, 3))
    torch.testing.assert_close(alone.logits, first.logits[:, :at], **CLOSE)


def test_where_nothing_came_through_the_output_is_zero_and_the_rest_stands_in_its_column():
    model = pool_decoder(build(), {2: 6}, keep_last=3, **HARD)
    with NO_GRAD:
        out = model.model(IDS, use_cache=True)
    kept = seen(out.past_key_values, 3, N)
    # The model's last norm turns 0 into 0.
    assert not out.last_hidden_state[~kept].any() and out.last_hidden_state[kept].any(-1).all()
    assert kept[:, -3:].all() and (kept.sum(1) == 9).all()


def test_the_first_token_is_always_kept_and_others_by_what_the_scorer_wants():
    model = pool_decoder(build(), {2: 6}, operator="hard")
    with NO_GRAD:
        model.model.prompt_pooling["2"].scorer.weight.zero_()
        out = model(IDS, use_cache=True)
    assert (places(out.past_key_values, 2)[:, 0] == 0).all()


def test_slots_are_mixtures_that_pass_gradients_to_the_scorer_through_the_layers_above():
    model = pool_decoder(build(), {1: 8, 3: 4}).train()
    labels = IDS.masked_fill(torch.arange(N) < N - 6, -100)
    model(IDS, labels=labels).loss.backward()
    for pooling in model.model.prompt_pooling.values():
        assert pooling.scorer.weight.grad.abs().max() > 0


def test_k_and_the_marks_of_one_call_hold_for_that_call():
    model = pool_decoder(build(), {2: 6})
    with NO_GRAD:
        before = model(IDS, use_cache=True)
        less = model(IDS, k=3, use_cache=True)
        bare = model.model(IDS, k=3, compress_mask=marks(IDS, 10), use_cache=True)
        after = model(IDS, use_cache=True)
    assert [places(out.past_key_values, 2).shape[1] for out in (before, less, bare)] == [7, 4, 3 + N - 10]
    assert after.logits.equal(before.logits) and not less.logits.equal(before.logits)


def test_a_share_keeps_as_many_of_each_row_as_it_is_one_of():
    ids = torch.cat([IDS[:1], IDS[1:].masked_fill(torch.arange(N) < 12, 0)])
    model = pool_decoder(build(), {2: 0.5}, keep_last=2)
    with NO_GRAD:
        out = model(ids, attention_mask=(ids != 0).long(), use_cache=True)
    assert (places(out.past_key_values, 2) >= 0).sum(1).tolist() == [11 + 2, 5 + 2]
    model(ids, attention_mask=(ids != 0).long(), k=0.25)
