"""read_prompt: what a model remembers of a prompt that it read in pieces, and what it says afterwards."""

import copy

import pytest
import torch
from recall import WORDS, tiny_llama
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel

from shtopk.integrations.decoder import pool_decoder, read_prompt, unpooled

SMALL = {"vocab_size": WORDS, "num_hidden_layers": 4, "num_attention_heads": 2}
GEMMA3 = Gemma3TextConfig(**SMALL, hidden_size=32, intermediate_size=64, num_key_value_heads=1, head_dim=8,
                          sliding_window=12, sliding_window_pattern=2)  # fmt: skip
FAMILIES = {
    "rotary": tiny_llama,
    "learned": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=4, n_head=2, n_positions=64)),
    "windows": lambda: Gemma3ForCausalLM(GEMMA3),
}
HARD = {"operator": "hard"}
PADS = 13


@pytest.fixture(scope="module")
def prompts():
    """(input_ids [2, 40], attention_mask); the first row is padded on the left."""
    ids = torch.randint(1, WORDS, (2, 40), generator=torch.Generator().manual_seed(0))
    ids[0, :PADS] = 0
    return ids, (ids != 0).long()


def pooled(family="rotary", k_by_layer=None, **options):
    torch.manual_seed(0)
    return pool_decoder(FAMILIES[family]().eval(), k_by_layer or {2: 8}, **options)


def said(model, prompts, cache=None, **more):
    """The tokens and logits of what a model says."""
    ids, mask = prompts
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": WORDS} | more
    out = model.generate(ids, attention_mask=mask, past_key_values=cache, return_dict_in_generate=True,
                         output_logits=True, **settings)  # fmt: skip
    return torch.stack(out.logits, 1)


def vectors_of(cache) -> list[int]:
    return [layer.keys.shape[-2] for layer in cache.layers]


def test_what_fits_into_k_is_read_as_generate_reads_it(prompts):
    model, alone = pooled(k_by_layer={1: 8, 3: 4}), tuple(part[1:] for part in prompts)
    marked = {"compress_mask": torch.tensor([[1, 0, 1, 1, 0, 0, 1, 0] + [2] * 28 + [0] * 4])}
    torch.testing.assert_close(said(model, alone, read_prompt(model, *alone, **marked)), said(model, alone, **marked))


@pytest.mark.parametrize("options", [{}, {"compress_mask": torch.tensor([[1] * 16 + [2] * 20 + [0] * 4])}],
                         ids=["the prompt", "marked"])  # fmt: skip
def test_a_prompt_of_one_piece_is_what_generate_reads(prompts, options):
    model, alone = pooled(k_by_layer={1: 8, 3: 4}), tuple(part[1:] for part in prompts)
    cache = read_prompt(model, *alone, **options)
    assert vectors_of(cache) == ([39, 8, 8, 4] if not options else [39, 19, 19, 11])
    torch.testing.assert_close(said(model, alone, cache), said(model, alone, **options))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("piece", [1, 7, 20])
def test_with_a_hard_choice_pieces_change_nothing(prompts, family, piece):
    model = pooled(family, {2: 8, 3: 5}, keep_last=3, **HARD)
    whole = said(model, prompts)
    torch.testing.assert_close(said(model, prompts, read_prompt(model, *prompts, piece=piece)), whole)
    torch.testing.assert_close(said(model, prompts, read_prompt(model, *prompts, piece=piece, window=64)), whole)


def test_the_layers_below_remember_what_they_would_have_without_pieces(prompts):
    model = pooled()
    cache, whole = read_prompt(model, *prompts, piece=7), read_prompt(model, *prompts)
    for index in range(2):
        mine, theirs = cache.layers[index], whole.layers[index]
        torch.testing.assert_close(mine.keys[1], theirs.keys[1])
        torch.testing.assert_close(mine.values[0, :, PADS:], theirs.values[0, :, PADS:])


@pytest.mark.parametrize(("family", "window"), [("rotary", None), ("rotary", 6), ("windows", 6), ("windows", 20)])
def test_a_padded_prompt_is_read_as_alone(prompts, family, window):
    ids, mask = prompts
    model = pooled(family, keep_last=2)
    both = said(model, prompts, read_prompt(model, ids, mask, piece=9, window=window))
    short, long = (ids[:1, PADS:], None), (ids[1:], None)
    torch.testing.assert_close(said(model, short, read_prompt(model, *short, piece=9, window=window)), both[:1])
    torch.testing.assert_close(said(model, long, read_prompt(model, *long, piece=9, window=window)), both[1:])


def test_a_window_is_seen_and_the_start_and_nothing_between():
    """One token a piece: then a piece sees what a mask of a window and four first tokens would let it see."""
    model = pooled(**HARD)
    ids = torch.randint(1, WORDS, (1, 30), generator=torch.Generator().manual_seed(1))
    cache = read_prompt(model, ids, piece=1, window=5)
    query, key = torch.arange(29).unsqueeze(1), torch.arange(29)
    seen = (key <= query) & ((key < 4) | (query - key <= 5))
    remembered = torch.cat([torch.arange(4), torch.arange(24, 29)])
    plain = tiny_llama()(ids[:, :-1], attention_mask=seen[None, None], use_cache=True).past_key_values
    for index in range(2):
        torch.testing.assert_close(cache.layers[index].keys, plain.layers[index].keys[:, :, remembered])


@pytest.mark.parametrize("n", [40, 400])
def test_with_a_window_memory_is_flat(n):
    model = pooled()
    most = []
    model.model.layers[1].register_forward_hook(lambda layer, given, output: most.append(output[0].numel()))
    ids = torch.randint(1, WORDS, (1, n))
    cache = read_prompt(model, ids, piece=10, window=10)
    assert vectors_of(cache) == [14, 14, 8, 8]
    assert cache.get_seq_length() == n - 1
    assert max(most) <= 10 * 32


def test_the_layers_above_work_once(prompts):
    model = pooled()
    lengths = []
    model.model.layers[3].register_forward_pre_hook(lambda layer, args: lengths.append(args[0].shape[1]))
    read_prompt(model, *prompts, piece=10)
    assert lengths == [1, 1, 1, 1, 8]


def test_what_follows_a_window_is_seen_by_all_that_comes_after(prompts):
    """Generation of many tokens, step by step or with a cache that was copied, cropped and read again."""
    model = pooled()
    cache = read_prompt(model, *prompts, piece=10, window=10)
    ids, mask = prompts
    more = torch.ones(2, 6, dtype=torch.long)
    at_once = copy.deepcopy(cache)
    longer, wider = torch.cat([ids, more], 1), torch.cat([mask, more], 1)
    positions = (wider.cumsum(1) - 1)[:, 39:]
    logits = model(longer[:, 39:], attention_mask=wider, position_ids=positions, past_key_values=at_once).logits
    for t in range(7):
        step = model(longer[:, 39 + t : 40 + t], attention_mask=wider[:, : 40 + t],
                     position_ids=positions[:, t : t + 1], past_key_values=cache).logits  # fmt: skip
        torch.testing.assert_close(step[:, 0], logits[:, t])


def test_generate_takes_the_whole_prompt_or_its_last_token(prompts):
    ids, mask = prompts
    model = pooled()
    whole = said(model, prompts, read_prompt(model, ids, mask, piece=10))
    torch.testing.assert_close(said(model, (ids[:, -1:], mask), read_prompt(model, ids, mask, piece=10)), whole)


def test_beams_go_on_with_a_cache_for_each(prompts):
    model = pooled()
    cache = read_prompt(model, *prompts, window=64)
    cache.batch_repeat_interleave(3)
    settings = {"num_beams": 3, "max_new_tokens": 4, "pad_token_id": 0, "attention_mask": prompts[1]}
    assert torch.equal(
        model.generate(prompts[0], past_key_values=cache, **settings), model.generate(prompts[0], **settings)
    )


def test_k_is_chosen_for_each_prompt(prompts):
    model = pooled()
    assert vectors_of(read_prompt(model, *prompts, piece=10, k=3)) == [39, 39, 3, 3]
    assert vectors_of(read_prompt(model, *prompts, piece=10, k=64)) == [39, 39, 39, 39]
    assert vectors_of(read_prompt(model, *prompts, piece=10)) == [39, 39, 8, 8]


def test_a_prompt_of_one_token_leaves_nothing_to_read():
    model, one = pooled(), torch.ones(1, 1, dtype=torch.long)
    cache = read_prompt(model, one)
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(said(model, (one, None), cache), said(model, (one, None)))


@pytest.mark.parametrize(("given", "complaint"), [
    ({"piece": 0}, "piece to be a number of tokens >= 1, got 0"),
    ({"window": 0}, "window to be a number of tokens >= 1, got 0"),
    ({"k": 0.5}, "k to be a number of vectors to read in pieces, got the share 0.5"),
    ({"k": 1}, "fewer protected tokens than k = 1"),
    ({"attention_mask": torch.ones(1, 3)}, r"attention_mask \[B, n\] of \[2, 4\] as input_ids, got \[1, 3\]"),
    ({"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}, "padding on the left"),
    ({"input_ids": torch.ones(4, dtype=torch.long)}, r"input_ids \[B, n\] of prompts, got \[4\]"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_prompt(pooled(), **({"input_ids": torch.ones(2, 4, dtype=torch.long)} | given))


def test_a_model_that_is_not_pooled_is_refused():
    with pytest.raises(ValueError, match="a model that pool_decoder was called on, got an unpooled LlamaForCausalLM"):
        read_prompt(tiny_llama(), torch.ones(2, 4, dtype=torch.long))


def test_a_model_that_is_unpooled_for_now_is_refused(prompts):
    model = pooled()
    with unpooled(model), pytest.raises(ValueError, match="expected a model that pools, got one inside"):
        read_prompt(model, *prompts)
    assert read_prompt(model, *prompts) is not None
