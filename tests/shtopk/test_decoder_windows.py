"""Layers that look back a window, above a pooling: the window counts columns, not slots."""

import copy

import pytest
import torch
from decoders import CLOSE, HARD, WINDOWS, build, marks, padded, tokens, with_holes
from transformers import DynamicCache

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.decoders.state import RUNNING

IDS = tokens()
N = IDS.shape[1]
ALL = pytest.mark.parametrize("name", WINDOWS)
GENERATE = {"max_new_tokens": 14, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@ALL
def test_a_window_reaches_as_far_back_as_without_a_pooling(name, attention):
    plain = build(name, attention, WINDOWS)
    model = pool_decoder(copy.deepcopy(plain), {2: 10}, keep_last=3, **HARD)
    with torch.no_grad():
        kept = kept_by(model)
        out = model(IDS)
    expected = with_holes(plain, IDS, {2: kept, 3: kept})
    torch.testing.assert_close(out.logits[kept], expected[kept], **CLOSE)


def kept_by(model):
    """What a layer without a window keeps, or would."""
    run = []
    hook = model.model.layers[3].register_forward_pre_hook(lambda *_: run.append(RUNNING.get().layout))
    with torch.no_grad():
        model(IDS)
    hook.remove()
    places = run[0].places
    return torch.zeros(len(places), N, dtype=torch.bool).scatter(1, places, True)


@pytest.mark.parametrize("cache", [None, "static"])
@ALL
def test_generation_past_the_window_says_what_one_pass_does(name, cache):
    """With padding on the left, too, where a row has empty slots."""
    model = pool_decoder(build(name, fields=WINDOWS), {2: 20}, keep_last=2)
    short = IDS[:1, :15]
    ids, mask = (torch.cat(both) for both in zip(padded(short, left=9), padded(IDS[1:]), strict=True))
    for prompt, real in ((IDS, None), (ids, mask)):
        real = torch.ones_like(prompt) if real is None else real
        out = model.generate(prompt, attention_mask=real, cache_implementation=cache, **GENERATE)
        whole = out.sequences
        real = torch.cat([real, torch.ones_like(whole[:, N:])], 1)
        given = {"attention_mask": real, "position_ids": (real.cumsum(-1) - 1).clamp(min=0)}
        with torch.no_grad():
            logits = model(whole, compress_mask=marks(whole, N - 2) * real, **given).logits
        torch.testing.assert_close(torch.stack(out.logits, 1), logits[:, N - 1 : -1], **CLOSE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@ALL
def test_a_cache_that_was_told_no_windows_says_the_same(name, attention):
    model = pool_decoder(build(name, attention, WINDOWS), {2: 12})
    told, untold = (
        model.generate(IDS, past_key_values=cache, **GENERATE)
        for cache in (DynamicCache(config=model.config), DynamicCache())
    )
    torch.testing.assert_close(torch.stack(untold.logits), torch.stack(told.logits), **CLOSE)


def test_a_layer_with_a_window_remembers_no_more_vectors_than_one_without_slots():
    model = pool_decoder(build("mistral", fields=WINDOWS), {2: 12})
    cache = model.generate(IDS, attention_mask=torch.ones_like(IDS), **GENERATE).past_key_values
    assert [layer.keys.shape[2] for layer in cache.layers] == [8, 8, 8, 8]
    with pytest.raises(ValueError, match="expected a cache without a window to drop tokens from"):
        cache.layers[3].crop(-1)
