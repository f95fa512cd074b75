"""What is kept of a prompt, in every way: the choice is that of an obvious, slow computation by the model itself."""

import pytest
import torch
from rivals.expected_attention import FUTURE
from rivals.prompts import PROMPT_RIVALS, TRAINED, prompt_pooling, put_rival
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder, unpool_decoder

LAYER, K, LAST, TOKENS = 1, 8, 3, 40
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 99, "initializer_range": 0.4}


@pytest.fixture
def plain():
    """A Llama whose heads of keys serve two heads of queries each."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def ids():
    return torch.randint(3, 99, (1, TOKENS), generator=torch.Generator().manual_seed(1))


def with_rival(model, name, k=K):
    pool_decoder(model, {LAYER: k}, keep_last=LAST)
    put_rival(model, LAYER, name, k)
    return model


@torch.no_grad()
def kept(model, ids, **given):
    """The places that the cache holds above the pooling, of each row."""
    return model(ids, use_cache=True, **given).past_key_values.layers[LAYER].places.tolist()


def best(scores, k, first=()):
    """The first places given, and those of the highest scores up to k."""
    order = sorted((place for place in range(len(scores)) if place not in first), key=lambda place: -scores[place])
    return sorted([*first, *order[: k - len(first)]])


def chosen(plain, name, ids, k=K):
    """The places of the slots, without those of the tokens at the end that are kept whole."""
    return kept(with_rival(plain, name, k), ids)[0][:-LAST]


@pytest.mark.parametrize("name", PROMPT_RIVALS)
def test_a_row_with_padding_keeps_what_it_keeps_alone(name, plain, ids):
    model, pads = with_rival(plain, name), 11
    batch = torch.cat([ids, torch.cat([torch.zeros(1, pads, dtype=torch.long), ids[:, pads:]], 1)])
    mask = (batch > 0).long()
    if name == "random tokens":
        assert all(len(set(row)) == K + LAST for row in kept(model, batch, attention_mask=mask))
        return
    first, second = kept(model, batch, attention_mask=mask)
    assert [first] == kept(model, ids)
    assert [[place - pads for place in second]] == kept(model, ids[:, pads:])


@pytest.mark.parametrize("name", PROMPT_RIVALS)
def test_the_first_token_is_kept_and_a_short_prompt_whole(name, plain, ids):
    model = with_rival(plain, name)
    places = kept(model, ids)[0]
    assert len(places) == K + LAST and places[0] == 0
    assert prompt_pooling(model)[str(LAYER)].slots_for(TOKENS) == K
    short = ids[:, : K + LAST]
    said = model(short).logits
    torch.testing.assert_close(said, unpool_decoder(model)(short).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in PROMPT_RIVALS if "sight" not in name])
def test_the_loss_teaches_what_there_is_to_learn(name, plain, ids):
    model = with_rival(plain, name).train()
    model(ids, labels=ids.masked_fill(torch.arange(TOKENS) < TOKENS - LAST, -100)).loss.backward()
    learnt = [p.grad.abs().sum() > 0 for p in prompt_pooling(model).parameters() if p.grad is not None]
    assert any(learnt) == (name in TRAINED)
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0  # through the vectors kept


def test_first_and_last_are_four_and_the_rest(plain, ids):
    assert chosen(plain, "first and last tokens", ids) == [0, 1, 2, 3, 33, 34, 35, 36]


def test_the_keys_of_the_smallest_norms_stay(plain, ids):
    keys = plain(ids).past_key_values.layers[LAYER].keys[0, :, :-LAST].detach()
    norms = [sum(float(head[place].norm()) for head in keys) for place in range(TOKENS - LAST)]
    assert chosen(plain, "key norm", ids) == best([-norm for norm in norms], K, [0])


def attention_of_the_model(plain, ids):
    """[h, n, n] of the layer, as it pays it."""
    with torch.no_grad():
        return plain(ids, output_attentions=True).attentions[LAYER][0]


def smooth(paid):
    """The mean of each and its two neighbours on either side, with 0 beyond the ends."""
    padded = [0.0, 0.0, *paid, 0.0, 0.0]
    return [sum(padded[place : place + 5]) / 5 for place in range(len(paid))]


def test_snapkv_keeps_its_window_and_what_that_looks_at(plain, ids):
    context, window = ids[:, :-LAST], K // 2
    paid = attention_of_the_model(plain, context)[:, -window:, :-window].mean((0, 1)).tolist()
    last = list(range(TOKENS - LAST - window, TOKENS - LAST))
    assert chosen(plain, "SnapKV", ids) == sorted([*best(smooth(paid), K - window, [0]), *last])


def test_snapkv_sees_the_question_where_it_is_asked_to(plain, ids):
    questions = torch.randint(3, 99, (6, LAST))
    prompts = [torch.cat([ids[:, :-LAST], question[None]], 1) for question in questions]
    paid = [attention_of_the_model(plain, prompt)[:, -LAST:, :-LAST].mean((0, 1)).tolist() for prompt in prompts]
    model = with_rival(plain, "SnapKV, question in sight")
    found = [kept(model, prompt)[0][:-LAST] for prompt in prompts]
    assert found == [best(smooth(one), K, [0]) for one in paid]
    assert len({tuple(places) for places in found}) > 1


def test_expected_attention_is_that_of_a_normal_distribution_of_later_queries(plain, ids):
    context = ids[:, :-LAST]
    n, layer = TOKENS - LAST, plain.model.layers[LAYER]
    with torch.no_grad():
        out = plain(context, output_hidden_states=True)
        vectors = layer.input_layernorm(out.hidden_states[LAYER])[0]
        queries = layer.self_attn.q_proj(vectors).view(n, 4, 8)
        cos, sin = plain.model.rotary_emb(vectors, torch.arange(n, n + FUTURE)[None])
    half = torch.zeros(8, 8)
    half[:4, 4:], half[4:, :4] = -torch.eye(4), torch.eye(4)
    turned = sum(torch.diag(c) + torch.diag(s) @ half for c, s in zip(cos[0], sin[0], strict=True)) / FUTURE
    cached = out.past_key_values.layers[LAYER]
    total = torch.zeros(n - 4)
    for head in range(4):
        mean = turned @ queries[4:, head].mean(0)
        covariance = turned @ torch.cov(queries[4:, head].T, correction=0) @ turned.T
        keys, values = cached.keys[0, head // 2, 4:], cached.values[0, head // 2, 4:]
        logits = torch.stack([key @ mean / 8**0.5 + key @ covariance @ key / 16 for key in keys])
        total += logits.softmax(0) * values.norm(dim=-1)
    expected = [0, 1, 2, 3, *(4 + place for place in best(total.tolist(), K - 4))]
    assert chosen(plain, "expected attention", ids) == expected


def test_means_are_those_of_equal_stretches_behind_the_first_token(plain, ids):
    vectors = torch.randn(2, 30, 32)
    mask = torch.ones(2, 30).masked_fill(torch.arange(30) >= torch.tensor([[30], [20]]), 0)
    rival = PROMPT_RIVALS["means of stretches"](plain, LAYER, K)
    out = rival(vectors, mask)
    for row, length in enumerate((30, 20)):
        parts = vectors[row, 1:length].tensor_split(K - 1)
        expected = torch.stack([vectors[row, 0], *(part.mean(0) for part in parts)])
        torch.testing.assert_close(out.values[row], expected)
    assert out.attention_mask.dtype == mask.dtype
    assert rival(vectors, mask, k=5).values.shape == (2, 5, 32)


def test_tokens_drawn_by_lot_are_others_each_time_and_the_same_from_the_same_seed(plain, ids):
    model, found = with_rival(plain, "random tokens"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(kept(model, ids))
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_right_is_refused(plain, ids):
    with pytest.raises(ValueError, match="expected a model that pool_decoder was called on, got LlamaForCausalLM"):
        prompt_pooling(plain)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=99, bos_token_id=1, eos_token_id=2))
    with pytest.raises(ValueError, match="expected a Llama to look at the queries and keys of, got GPT2LMHeadModel"):
        PROMPT_RIVALS["key norm"](gpt2, LAYER, K)
    with pytest.raises(ValueError, match="k of FirstAndLast to be a whole number, got the share"):
        PROMPT_RIVALS["first and last tokens"](plain, LAYER, K)(torch.randn(1, 9, 32), k=0.5)
    model = with_rival(plain, "SnapKV, question in sight")
    with pytest.raises(ValueError, match="expected eval mode and no labels"):
        model(ids, labels=ids.masked_fill(torch.arange(TOKENS) < TOKENS - LAST, -100))
    model(ids)
    with pytest.raises(ValueError, match="expected one part to pool in each prompt, got 2 in 1"):
        prompt_pooling(model)[str(LAYER)](torch.randn(2, 9, 32))
