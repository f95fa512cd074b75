"""The caches of a pooled language model: what stands in them, fixed sizes, resets, compiled steps."""

import copy
import functools

import pytest
import torch
from decoders import CLOSE, NAMES, build, marks, places, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CompileConfig, DynamicCache, StaticCache
from transformers.cache_utils import Cache, DynamicLayer

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.decoders.cache import FixedSlotLayer, SlotLayer
from shtopk.integrations.decoders.families import with_cache
from shtopk.integrations.decoders.state import asking

IDS = tokens()
N = IDS.shape[1]
ALL = pytest.mark.parametrize("name", NAMES)
GENERATE = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 6, "do_sample": False,
            "return_dict_in_generate": True, "output_logits": True}  # fmt: skip


def pooled(name="llama", **more):
    return pool_decoder(build(name, **more), {1: 8, 3: 5}, keep_last=2)


def logits_of(out):
    return torch.stack(out.logits, 1)


@pytest.mark.parametrize("called", ["cache", "past_key_values"])
def test_layers_may_be_given_their_cache_by_its_old_and_its_new_name(called):
    """It is `cache` since transformers 5.24."""
    plain = build("llama")
    model = copy.deepcopy(plain)
    for layer in model.model.layers:
        own, forward = next(iter(with_cache(layer, None))), layer.forward

        def rename(layer, args, given, own=own):
            return args, {called if name == own else name: value for name, value in given.items()}

        def renamed(*args, own=own, forward=forward, **given):
            return forward(*args, **{own if name == called else name: value for name, value in given.items()})

        layer.forward = functools.wraps(forward)(renamed)
        layer.register_forward_pre_hook(rename, with_kwargs=True)
    expected, found = (
        pool_decoder(one, {1: 8, 3: 5}, scorer="first").generate(IDS, **GENERATE) for one in (plain, model)
    )
    torch.testing.assert_close(logits_of(found), logits_of(expected))
    assert [type(layer) for layer in found.past_key_values.layers][1:] == [SlotLayer] * 3


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
    """One of them has fewer tokens than there are slots, so that what is seen differs by row."""
    model, mask = pool_decoder(build(), {1: 14}), torch.ones_like(IDS)
    mask[0, :14] = 0
    with torch.no_grad():
        cache = model(IDS, attention_mask=mask, use_cache=True).past_key_values
        other, last = copy.deepcopy(cache), IDS[:, -1:]
        alone = model(last, past_key_values=copy.deepcopy(cache)).logits
        other.reorder_cache(torch.tensor([1, 0]))
        assert places(other, 2).equal(places(cache, 2).flip(0))
        swapped = model(last.flip(0), past_key_values=other).logits
        other = copy.deepcopy(cache)
        other.batch_repeat_interleave(2)
        repeated = model(last.repeat_interleave(2, 0), past_key_values=copy.deepcopy(other)).logits
        other.batch_select_indices(torch.tensor([3]))
        chosen = model(last[1:], past_key_values=other).logits
    for said, expected in ((swapped, alone.flip(0)), (repeated, alone.repeat_interleave(2, 0)), (chosen, alone[1:])):
        torch.testing.assert_close(said, expected, **CLOSE)
    assert places(other, 2)[:, :-1].equal(places(cache, 2)[1:])  # taken once, though three layers share them


def test_tokens_that_followed_can_be_dropped_again():
    model, more = pooled(), tokens(n=4, seed=9)
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        expected = model(more, past_key_values=copy.deepcopy(cache)).logits
        model(tokens(n=3, seed=10), past_key_values=cache)
        cache.crop(-3)
        torch.testing.assert_close(model(more, past_key_values=cache).logits, expected, **CLOSE)
    assert [cache.get_seq_length(layer) for layer in (0, 1, 3)] == [N + 4] * 3
    assert places(cache, 3)[:, -5:].tolist() == [list(range(N - 1, N + 4))] * 2


def test_a_prompt_is_not_cut():
    model = pooled()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        model(tokens(n=3, seed=10), past_key_values=cache)
    with pytest.raises(ValueError, match=rf"that followed a pooled prompt of {N}, got 4 of {N + 3} to drop; read"):
        cache.crop(-4)


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "static"])
def test_what_followed_is_hidden_by_the_mask_of_a_later_pass(fixed):
    """As if it had never been there; what a slot stands for cannot be hidden any more."""
    model, more = pooled(), tokens(n=2, seed=9)
    positions = {"position_ids": torch.arange(N, N + 2).expand(2, 2)}
    mask = (torch.arange(N + 5) < N) | (torch.arange(N + 5) >= N + 3)
    said = []
    with torch.no_grad():
        for hidden in (False, True):
            cache = StaticCache(config=model.config, max_cache_len=40) if fixed else DynamicCache()
            model(IDS, past_key_values=cache)
            if hidden:
                model(tokens(n=3, seed=10), past_key_values=cache)
                positions |= {"attention_mask": mask.long().expand(2, -1)}
            said.append(model(more, past_key_values=cache, **positions).logits)
    torch.testing.assert_close(*said, **CLOSE)


def test_what_followed_stays_hidden_while_more_is_generated():
    model, turn = pooled(), tokens(n=3, seed=10)
    new = tokens(n=4, seed=11)
    said = []
    for mid in (turn, turn.flip(1)):
        with torch.no_grad():
            cache = model(IDS, use_cache=True).past_key_values
            model(mid, past_key_values=cache)
        whole = torch.cat([IDS, mid, new], 1)
        mask = torch.ones_like(whole)
        mask[:, N : N + 3] = 0
        said.append(logits_of(model.generate(whole, past_key_values=cache, **GENERATE | {"attention_mask": mask})))
    torch.testing.assert_close(*said, **CLOSE)


def test_a_mask_of_pairs_after_a_prompt_is_refused():
    model = pooled()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"expected an attention mask \[B, m\] after a prompt, got one of pairs"):
        model(IDS[:, :2], past_key_values=cache, attention_mask=torch.ones(2, 1, 2, N + 2, dtype=torch.bool))


def test_padding_among_what_follows_is_not_seen():
    model = pooled()
    following = tokens(n=5, seed=11)
    following[0, 1:3] = 0
    whole = torch.cat([IDS, following], 1)
    real = (whole != 0).long()
    for cache in (DynamicCache(), StaticCache(config=model.config, max_cache_len=40)):
        with torch.no_grad():
            model(IDS, past_key_values=cache)
            steps = [
                model(whole[:, at : at + 1], past_key_values=cache, attention_mask=real[:, : at + 1]).logits
                for at in range(N, N + 5)
            ]
            one = model(whole, compress_mask=marks(whole, N - 2), attention_mask=real).logits[:, N:]
        torch.testing.assert_close(torch.cat(steps, 1)[following != 0], one[following != 0], **CLOSE)


def test_a_cache_that_holds_something_else_than_keys_and_values_is_refused():
    class QuantizedLayer(DynamicLayer):
        pass

    with pytest.raises(ValueError, match="such as DynamicCache, got one of QuantizedLayer"):
        pooled()(IDS, past_key_values=Cache(layer_class_to_replicate=QuantizedLayer))


class Stream:
    """A stand-in for one of a GPU."""

    def wait_stream(self, other): ...
    def __enter__(self): ...
    def __exit__(self, *error): ...


def test_an_offloaded_cache_moves_the_layers_above_a_pooling_like_others(monkeypatch):
    monkeypatch.setattr(torch, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: Stream())
    moved = []
    for kind in (SlotLayer, FixedSlotLayer):
        monkeypatch.setattr(kind, "offload", lambda layer: moved.append(type(layer)))
    model = pooled()
    expected = logits_of(model.generate(IDS, **GENERATE))
    for kind, cache in ((SlotLayer, "offloaded"), (FixedSlotLayer, "offloaded_static")):
        moved.clear()
        torch.testing.assert_close(logits_of(model.generate(IDS, cache_implementation=cache, **GENERATE)), expected)
        assert moved == [kind] * 3 * 6  # layers, passes


class Calls(TorchDispatchMode):
    """What torch is asked to compute."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def calls_of_a_step(model, **cache):
    with torch.no_grad(), asking(generating=True):
        out = model(IDS, use_cache=True, **cache)
        given = {"past_key_values": out.past_key_values, "attention_mask": torch.ones(2, N + 1, dtype=torch.long)}
        with Calls() as calls:
            model(IDS[:, :1], **given)
    return calls.names


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_a_step_waits_for_nothing_and_layers_that_see_alike_share_one_mask(name):
    def more_than_unpooled(layers):
        plain, model = (build(name, num_hidden_layers=layers, layer_types=None) for _ in range(2))
        before, after = calls_of_a_step(plain), calls_of_a_step(pool_decoder(model, {1: 8}))
        waits = "aten._local_scalar_dense.default"
        assert after.count(waits) <= before.count(waits)
        return len(after) - len(before)

    assert 0 < more_than_unpooled(4) == more_than_unpooled(8) < 40
