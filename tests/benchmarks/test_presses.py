"""kvpress beside ours: what a press drops is hidden from all that follows, and from nothing before."""

import pytest
import torch
from rivals import presses
from rivals.prompts import put_rival
from transformers import LlamaConfig, LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder

CONTEXT, QUESTION, NEW, LAYER = 30, 4, 6, 1
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 99, "initializer_range": 0.4}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZE, num_attention_heads=4, num_key_value_heads=2)).eval()


@pytest.fixture
def ids():
    return torch.randint(3, 99, (2, CONTEXT + QUESTION), generator=torch.Generator().manual_seed(1))


class EveryThird:
    """A press, as kvpress has them, whose heads keep other places each."""

    def post_init_from_model(self, model):
        self.layers = []

    def forward_hook(self, module, args, kwargs, output):
        assert kwargs["cache_position"][-1] + 1 == kwargs["hidden_states"].shape[1]
        assert module.rotary_emb is not None
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        layer.keys, layer.values = (
            torch.stack([x[:, head, head::3][:, : CONTEXT // 3] for head in range(2)], 1)
            for x in (layer.keys, layer.values)
        )
        self.layers.append(module.layer_idx)
        return output


def generated(model, ids):
    """Greedily, without a cache."""
    new = ids
    for _ in range(NEW):
        new = torch.cat([new, model(new, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return new[:, ids.shape[1] :]


def hide(module, args, kwargs):
    """Of every third place of the context each head sees another one, from the question on."""
    n = kwargs["hidden_states"].shape[1]
    seen = torch.ones(n, n, dtype=torch.bool).tril().repeat(4, 1, 1)
    for head in range(4):
        dropped = torch.arange(CONTEXT) % 3 != head // 2  # two heads share keys
        seen[head, CONTEXT:, :CONTEXT] &= ~dropped
    return args, kwargs | {"attention_mask": seen[None]}


@torch.no_grad()
def test_what_follows_sees_what_each_head_kept_and_the_context_saw_all(model, ids):
    context, question = ids[:, :CONTEXT], ids[:, CONTEXT:]
    press = EveryThird()
    answer = presses.answer(model, press, context, question, NEW, LAYER)
    assert press.layers == [1, 2]
    assert not any(hasattr(layer.self_attn, "rotary_emb") for layer in model.model.layers)
    whole = presses.answer(model, None, context, question, NEW)
    assert whole.equal(generated(model, ids)) and not whole.equal(answer)
    for layer in model.model.layers[LAYER:]:
        layer.self_attn.register_forward_pre_hook(hide, with_kwargs=True)
    assert answer.equal(generated(model, ids))


def test_a_row_without_kvpress_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(presses, "find_spec", lambda name: None)
    assert not presses.installed()
    with pytest.raises(ModuleNotFoundError, match="SnapKV needs kvpress; run pip install --no-deps kvpress"):
        presses.make_press("kvpress: SnapKV", 30, 8)


def test_other_attention_than_sdpa_is_refused(model, ids):
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="expected sdpa attention, got eager"):
        presses.answer(model, None, ids, ids, 1)


needs_kvpress = pytest.mark.skipif(not presses.installed(), reason="kvpress asks for another transformers")


@needs_kvpress
@pytest.mark.parametrize("row", presses.PRESSES)
def test_every_head_of_the_layers_from_one_on_keeps_k(row, model, ids):
    for k in (1, 7, 29):
        with torch.no_grad(), presses.pressed(model, presses.make_press(row, 30, k), LAYER):
            cache = model(ids[:, :30]).past_key_values
        assert [layer.keys.shape[2] for layer in cache.layers] == [30, k, k]


@needs_kvpress
def test_a_press_that_sees_the_question_keeps_that_and_k_of_the_context(model, ids, monkeypatch):
    made, make_press = [], presses.make_press
    monkeypatch.setattr(presses, "make_press", lambda *given: made.append(given) or make_press(*given))
    context, question = ids[:, :CONTEXT], ids[:, CONTEXT:]
    found = presses.press_and_answer(model, presses.IN_SIGHT, context, question, NEW, 8, LAYER)
    seen, window = CONTEXT + QUESTION - 1, QUESTION - 1
    assert made == [("kvpress: SnapKV", seen, 8 + window, window)]
    press = make_press(*made[0])
    assert found.equal(presses.answer(model, press, ids[:, :seen], ids[:, seen:], NEW, LAYER))
    whole = presses.answer(model, None, context, question, NEW)
    assert presses.press_and_answer(model, "kvpress: SnapKV", context, question, NEW, CONTEXT, LAYER).equal(whole)


@needs_kvpress
@pytest.mark.parametrize("name", ["first and last tokens", "key norm", "expected attention", "SnapKV"])
def test_where_there_is_one_head_of_keys_ours_choose_as_kvpress_does(name):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_attention_heads=4, num_key_value_heads=1)
    plain, ids, k = LlamaForCausalLM(config).eval(), torch.randint(3, 99, (1, 101)), 12
    with torch.no_grad():
        every = plain(ids[:, :-1]).past_key_values.layers[LAYER].keys[0, 0]
        with presses.pressed(plain, presses.make_press(f"kvpress: {name}", 100, k), LAYER):
            theirs = plain(ids[:, :-1]).past_key_values.layers[LAYER].keys[0, 0]
        pool_decoder(plain, {LAYER: k})
        put_rival(plain, LAYER, name, k)
        ours = plain(ids, use_cache=True).past_key_values.layers[LAYER].places[0, :-1]
    theirs = torch.cdist(theirs, every).argmin(1).tolist()
    assert (
        len({*theirs} - {*ours.tolist()}) <= 1
    )  # the first token, which ours always keep, takes the place of another
