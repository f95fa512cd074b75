"""What of a prompt is pooled: by default, by labels, and as a compress_mask marks it, regions apart."""

import copy

import pytest
import torch
from decoders import CLOSE, HARD, build, marks, places, seen, tokens, with_holes

from shtopk.integrations.decoder import pool_decoder
from shtopk.pooling import poolings

IDS = tokens()
N = IDS.shape[1]
TWO = torch.tensor([[0] * 2 + [1] * 8 + [0] * 3 + [2] * 7 + [0] * 4, [3] * 10 + [7] * 10 + [0] * 4])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_regions_are_pooled_apart_each_to_k_and_what_is_not_marked_stays(name, attention):
    plain = build(name, attention)
    model = pool_decoder(copy.deepcopy(plain), {1: 3}, **HARD)
    with torch.no_grad():
        out = model(IDS, compress_mask=TWO, use_cache=True)
    kept = seen(out.past_key_values, 1, N)
    assert all((kept[row] & (TWO[row] == number)).sum() == 3 for row, number in ((0, 1), (0, 2), (1, 3), (1, 7)))
    assert kept[TWO == 0].all()
    expected = with_holes(plain, IDS, {1: kept, 2: kept, 3: kept}, hidden_slots())
    torch.testing.assert_close(out.logits[kept], expected[kept], **CLOSE)


def hidden_slots():
    """[B, 1, n, n] True where a token stands before the end of another region than its own."""
    n = torch.arange(N)
    end = torch.where(TWO > 0, ((TWO[:, :, None] == TWO[:, None]) * n).amax(-1), n)
    return ((end[:, None] > n[:, None]) & (TWO[:, None] != TWO[:, :, None]))[:, None]


def test_a_kept_token_before_the_end_of_a_region_does_not_see_what_was_chosen_in_it():
    model, mask = pool_decoder(build(), {1: 4}), marks(IDS, 20)
    mask[:, 8:11] = 0
    other = IDS.clone()
    other[:, 15:] = tokens(n=N - 15, seed=6)
    with torch.no_grad():
        one, two = (model(ids, compress_mask=mask).logits for ids in (IDS, other))
    assert one[:, 8:11].equal(two[:, 8:11]) and not one[:, -3:].equal(two[:, -3:])


def test_a_region_that_fits_into_k_hides_nothing_of_itself_whatever_stands_beside_it():
    plain, model, mask = build(), pool_decoder(build(), {1: 8, 2: 7}), torch.zeros_like(IDS)
    mask[0, :10] = torch.tensor([1, 1, 1, 0, 0, 1, 1, 0, 1, 0])
    mask[1, :20] = 1
    with torch.no_grad():
        expected = plain(IDS).logits[0]
        torch.testing.assert_close(model(IDS[:1], compress_mask=mask[:1]).logits[0], expected, **CLOSE)
        torch.testing.assert_close(model(IDS, compress_mask=mask).logits[0], expected, **CLOSE)
    plain, model = pool_decoder(plain, {2: 4}), pool_decoder(build(), {1: 8, 2: 4})  # it is pooled higher up
    poolings(plain)[0].load_state_dict(poolings(model)[1].state_dict())
    with torch.no_grad():
        pooled, both = (one(IDS, compress_mask=mask).logits[0] for one in (plain, model))
    torch.testing.assert_close(both, pooled, **CLOSE)


def test_regions_that_interleave_leak_nothing_of_what_follows_a_kept_token():
    mask = torch.tensor([[1, 2, 1, 2, 1, 0, 2, 2, 0, 2, 0, 3, 3, 3, 3, 3, 3, 0, 3, 0, 0, 0, 0, 0]]).expand(2, -1)
    model = pool_decoder(build(), {1: 2, 2: 1}, protected=())
    for at in (6, 9, 11, 18):
        other = IDS.clone()
        other[:, at:] = tokens(n=N - at, seed=7)
        with torch.no_grad():
            one, two = (model(ids, compress_mask=mask).logits for ids in (IDS, other))
        before = (mask == 0) & (torch.arange(N) < at)
        assert one[before].equal(two[before])


def test_labels_tell_where_each_prompt_ends():
    model = pool_decoder(build(), {2: 6}, keep_last=2)
    ends = torch.tensor([[12], [20]])
    labels = IDS.masked_fill(torch.arange(N) < ends, -100)
    with torch.no_grad():
        out = model(IDS, labels=labels, use_cache=True)
        by_hand = model(IDS, compress_mask=(torch.arange(N) < ends - 2).long(), use_cache=True)
    torch.testing.assert_close(out.logits, by_hand.logits, **CLOSE)
    assert (places(out.past_key_values, 2) >= 0).sum(1).tolist() == [6 + 14, 6 + 6]
    shifted = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(out.loss, shifted)


def test_a_row_without_a_prompt_is_read_whole_beside_one_with_a_prompt():
    model = pool_decoder(build(), {2: 6})
    labels = IDS.clone()
    labels[0, :20] = -100
    with torch.no_grad():
        out = model(IDS, labels=labels, use_cache=True)
        whole = model(IDS, k=N).logits
    torch.testing.assert_close(out.logits[1], whole[1], **CLOSE)


def test_names_of_regions_may_be_any_numbers():
    model = pool_decoder(build(), {2: 3})
    with torch.no_grad():
        one, two = (model(IDS, compress_mask=mask).logits for mask in (TWO, TWO * 10**12))
    assert one.equal(two)


def test_in_training_something_must_tell_where_the_prompt_ends():
    """A loss that takes the labels for itself, as with label smoothing, would else be one on what was pooled."""
    model = pool_decoder(build(), {2: 3}).train()
    with pytest.raises(ValueError, match="expected labels or a compress_mask in training, which tell where"):
        model(IDS)
    model(IDS, compress_mask=marks(IDS, 9))
    model.model(IDS)
    with torch.no_grad():
        model(IDS)


@pytest.mark.parametrize(("mask", "message"), [
    (torch.zeros(2, N), "expected a compress_mask that marks tokens to pool, got none"),
    (torch.ones(2, N), "leaves the last token of each row whole"),
    (marks(IDS, N - 1)[:1], r"expected a compress_mask \[B, n\] of \[2, 24\] as the prompt, got \[1, 24\]"),
    (marks(IDS, 3).flatten(), r"of \[2, 24\] as the prompt, got \[48\]"),
    (-marks(IDS, 3), "expected a compress_mask of 0 and numbers of regions, got -1"),
    (marks(IDS, 3) * 0.5, "expected a compress_mask of 0 and numbers of regions, got 0.5"),
    (marks(IDS, 3) * torch.nan, "expected a compress_mask of 0 and numbers of regions, got nan"),
])  # fmt: skip
def test_an_impossible_compress_mask_is_told_in_a_line(mask, message):
    with pytest.raises(ValueError, match=message):
        pool_decoder(build(), {2: 3})(IDS, compress_mask=mask)


def test_the_last_token_before_padding_is_the_last():
    ids = IDS.masked_fill(torch.arange(N) > 20, 0)
    mask = marks(IDS, 21)
    with pytest.raises(ValueError, match="leaves the last token of each row whole"):
        pool_decoder(build(), {2: 3})(ids, attention_mask=(ids != 0).long(), compress_mask=mask)


@pytest.mark.parametrize(("labels", "more", "message"), [
    (IDS, {}, "expected labels of -100 for the tokens of the prompt, got labels from the first token on"),
    (IDS, {"compress_mask": marks(IDS, 9)}, "expected labels of -100 for tokens that are pooled"),
    (IDS[:, 1:], {}, r"expected labels \[B, n\] of \[2, 24\] as the tokens, got \[2, 23\]"),
    (IDS[:, 1:], {"compress_mask": marks(IDS, 9)}, r"expected labels \[B, n\] of \[2, 24\] as the tokens"),
])  # fmt: skip
def test_labels_on_what_is_pooled_are_refused(labels, more, message):
    with pytest.raises(ValueError, match=message):
        pool_decoder(build(), {2: 3})(IDS, labels=labels, **more)
