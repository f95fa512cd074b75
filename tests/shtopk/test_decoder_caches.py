"""The caches of a pooled language model: what stands in them, fixed sizes, resets, compiled steps."""

import copy

import pytest
import torch
from decoders import CLOSE, NAMES, build, marks, places, tokens
from transformers import CompileConfig, DynamicCache, StaticCache
from transformers.cache_utils import Cache, DynamicLayer

from shtopk.integrations.decoder import pool_decoder

IDS = tokens()
N = IDS.shape[1]
ALL = pytest.mark.parametrize("name", NAMES)
GENERATE = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 6, "do_sample": False,
            "return_dict_in_generate": True, "output_logits": True}  # fmt: skip


def pooled(name="llama", **more):
    return pool_decoder(build(name, **more), {1: 8, 3: 5}, keep_last=2)


def logits_of(out):
    return torch.stack(out.logits, 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@ALL
def test_a_static_cache_says_the_same_and_keeps_its_size(name, attention):
    model = pooled(name, attention=attention)
    growing, static = model.generate(IDS, **GENERATE), model.generate(IDS, cache_implementation="static", **GENERATE)
    torch.testing.assert_close(logits_of(static), logits_of(growing), **CLOSE)
    rest = 29 - N  # one token less than generated: the last one is not read
    assert [layer.keys.shape[2] for layer in static.past_key_values.layers[1::2]] == [8 + 2 + rest, 5 + 2 + rest]
    assert static.past_key_values.is_compileable


def test_a_given_cache_serves_one_prompt_after_the_other_once_it_is_reset():
    model = pooled()
    for cache in (
        StaticCache(config=model.config, max_cache_len=40),
        DynamicCache(config=model.config),
        DynamicCache(),
    ):
        for ids, k in ((IDS, None), (tokens(seed=8), 4), (IDS, N), (IDS[:, :20], None)):
            more = GENERATE | {"attention_mask": torch.ones_like(ids), "k": k}
            out = model.generate(ids, past_key_values=cache, **more)
            torch.testing.assert_close(logits_of(out), logits_of(model.generate(ids, **more)), **CLOSE)
            cache.reset()


def test_a_step_with_a_static_cache_compiles_in_one_graph_and_once():
    torch._dynamo.reset()
    model = pooled()
    config = CompileConfig(fullgraph=True, backend="eager", mode=None)
    config._compile_all_devices = True
    expected = model.generate(IDS, **GENERATE)
    torch._dynamo.utils.counters.clear()
    for _ in range(2):
        out = model.generate(IDS, cache_implementation="static", compile_config=config, **GENERATE)
        torch.testing.assert_close(logits_of(out), logits_of(expected), **CLOSE)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_compiled_model_reads_a_prompt_as_it_does_without():
    """In several graphs: how many vectors come through is not known before."""
    torch._dynamo.reset()
    model = pool_decoder(build(num_hidden_layers=2), {1: 8}, operator="hard").train()
    given = {"labels": IDS.masked_fill(torch.arange(N) < 15, -100), "use_cache": False, "k": 6}
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(IDS, **given).loss, model(IDS, **given).loss)


def test_the_vectors_of_a_cache_follow_its_rows():
    model = pooled()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        other, last = copy.deepcopy(cache), IDS[:, -1:]
        alone = model(last, past_key_values=copy.deepcopy(cache)).logits
        other.reorder_cache(torch.tensor([1, 0]))
        swapped = model(last.flip(0), past_key_values=other).logits
        other = copy.deepcopy(cache)
        other.batch_repeat_interleave(2)
        repeated = model(last.repeat_interleave(2, 0), past_key_values=copy.deepcopy(other)).logits
        other.batch_select_indices(torch.tensor([3]))
        chosen = model(last[1:], past_key_values=other).logits
    for said, expected in ((swapped, alone.flip(0)), (repeated, alone.repeat_interleave(2, 0)), (chosen, alone[1:])):
        torch.testing.assert_close(said, expected, **CLOSE)
    assert places(other, 2)[:, :-1].equal(places(cache, 2)[1:])  # taken once, though two layers share them


def test_tokens_that_followed_can_be_dropped_again():
    model, more = pooled(), tokens(n=4, seed=9)
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        expected = model(more, past_key_values=copy.deepcopy(cache)).logits
        model(tokens(n=3, seed=10), past_key_values=cache)
        cache.crop(-3)
        torch.testing.assert_close(model(more, past_key_values=cache).logits, expected, **CLOSE)
    assert cache.get_seq_length() == N + 4 and places(cache, 3).shape[1] == 5 + 1 + 1 + 4


def test_padding_among_what_follows_is_not_seen():
    model = pooled()
    following = tokens(n=5, seed=11)
    following[0, 1:3] = 0
    whole = torch.cat([IDS, following], 1)
    given = {"attention_mask": (whole != 0).long()}
    for cache in (DynamicCache(), StaticCache(config=model.config, max_cache_len=40)):
        with torch.no_grad():
            model(IDS, past_key_values=cache)
            steps = [model(whole[:, : at + 1][:, -1:], past_key_values=cache,
                           attention_mask=given["attention_mask"][:, : at + 1]).logits for at in range(N, N + 5)]  # fmt: skip
            one = model(whole, compress_mask=marks(whole, N - 2), **given).logits
        real = following != 0
        torch.testing.assert_close(torch.cat(steps, 1)[real], one[:, N:][real], **CLOSE)


def test_a_cache_that_holds_something_else_than_keys_and_values_is_refused():
    class QuantizedLayer(DynamicLayer):
        pass

    with pytest.raises(ValueError, match="such as DynamicCache, got one of QuantizedLayer"):
        pooled()(IDS, past_key_values=Cache(layer_class_to_replicate=QuantizedLayer))


def test_layers_that_share_a_height_share_what_is_known_of_it():
    """A step takes note of its token once, and makes one mask for all layers that see alike."""
    model = pooled("gemma3_text")
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
    assert cache.layers[1].shared is cache.layers[2].shared is not cache.layers[3].shared
    assert [cache.layers[i].leads for i in (1, 2, 3)] == [True, False, True]
