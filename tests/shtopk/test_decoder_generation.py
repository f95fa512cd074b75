"""`generate` of a pooled language model: beams, samples, conversations, and what it refuses."""

import threading

import pytest
import torch
from decoders import CLOSE, build, marks, padded, places, tokens
from transformers import GenerationConfig

from shtopk.integrations.decoder import pool_decoder

IDS = tokens()
N = IDS.shape[1]
ONES = torch.ones_like(IDS)


def pooled(**more):
    return pool_decoder(build(**more), {1: 10, 2: 5}, keep_last=2)


def in_one_pass(model, whole):
    """Log-probabilities of all words after the prompt, the prompt of N tokens pooled as in generation."""
    with torch.no_grad():
        logits = model(whole, compress_mask=marks(whole, N - 2)).logits[:, N - 1 : -1].log_softmax(-1)
    return logits.gather(2, whole[:, N:, None]).squeeze(-1)


@pytest.mark.parametrize("cache", [None, "static"])
def test_beams_are_scored_as_one_pass_scores_them(cache):
    model = pooled()
    out = model.generate(IDS, attention_mask=ONES, num_beams=3, num_return_sequences=3, max_new_tokens=5,
                         length_penalty=0.0, do_sample=False, return_dict_in_generate=True, output_scores=True,
                         cache_implementation=cache)  # fmt: skip
    assert len(out.sequences.unique(dim=0)) == 6
    torch.testing.assert_close(in_one_pass(model, out.sequences).sum(1), out.sequences_scores, atol=1e-4, rtol=1e-4)


def test_samples_are_drawn_from_what_one_pass_says():
    model = pooled()
    torch.manual_seed(1)
    out = model.generate(IDS, attention_mask=ONES, do_sample=True, top_k=0, num_return_sequences=2, max_new_tokens=5,
                         return_dict_in_generate=True, output_logits=True)  # fmt: skip
    logits = torch.stack(out.logits, 1).log_softmax(-1).gather(2, out.sequences[:, N:, None]).squeeze(-1)
    torch.testing.assert_close(in_one_pass(model, out.sequences), logits, **CLOSE)


def test_marks_of_a_prompt_follow_its_beams():
    model, mask = pooled(), marks(IDS, 15)
    mask[1, 3:] = 0
    out = model.generate(IDS, attention_mask=ONES, compress_mask=mask, k=4, num_beams=2, max_new_tokens=3,
                         do_sample=False, return_dict_in_generate=True)  # fmt: skip
    assert (places(out.past_key_values, 3)[:, :-2] >= 0).sum(1).tolist() == [4 + 9, 4 + 9, 3 + 21, 3 + 21]


@pytest.mark.parametrize("cache", [None, "static"])
def test_a_conversation_goes_on_with_the_cache_of_a_pooled_prompt(cache):
    """Its later turns are kept whole, with padding in them, too."""
    model, turn = pooled(), tokens(n=7, seed=5)
    prompt, mask = (torch.cat(both) for both in zip(padded(IDS[:1, 5:], left=5), padded(IDS[1:]), strict=True))
    more = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0}
    if cache:
        more |= {"cache_implementation": cache, "max_cache_len": 60}
    first = model.generate(prompt, attention_mask=mask, **more)
    whole, turn[0, :2] = torch.cat([first.sequences, turn], 1), 0
    whole[0, -7:-5] = 0
    more.pop("cache_implementation", None)
    second = model.generate(whole, attention_mask=(whole != 0).long(), past_key_values=first.past_key_values,
                            output_logits=True, **more)  # fmt: skip
    whole = second.sequences
    real = (whole != 0).long()
    with torch.no_grad():
        given = {"attention_mask": real, "position_ids": (real.cumsum(-1) - 1).clamp(min=0)}
        logits = model(whole, compress_mask=marks(whole, N - 2) * real, **given).logits
    torch.testing.assert_close(torch.stack(second.logits, 1), logits[:, -5:-1], **CLOSE)
    assert second.past_key_values.layers[3].shared.seen == whole.shape[1] - 1


def test_a_turn_may_be_given_without_what_stands_before_it():
    model, more = pooled(), {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    first = model.generate(IDS, attention_mask=ONES, **more)
    new = torch.cat([first.sequences[:, -1:], tokens(n=6, seed=8)], 1)  # the last token was not read yet
    real = torch.ones(2, N + 4 + 6, dtype=torch.long)
    said = model.generate(new, attention_mask=real, past_key_values=first.past_key_values, output_logits=True, **more)
    whole = torch.cat([first.sequences[:, :-1], said.sequences], 1)
    with torch.no_grad():
        expected = model(whole, compress_mask=marks(whole, N - 2)).logits[:, -5:-1]
    torch.testing.assert_close(torch.stack(said.logits, 1), expected, **CLOSE)


@pytest.mark.parametrize("left", [0, 3], ids=["the prompt", "padding, too"])
def test_marks_behind_padding_are_those_of_the_prompt_alone(left):
    model, more = pooled(), {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True,
                             "output_logits": True}  # fmt: skip
    ids, mask = (torch.cat(both) for both in zip(padded(IDS[:1, :17], left=7), padded(IDS[1:]), strict=True))
    both = torch.zeros(2, N, dtype=torch.long)
    both[0, 9 - left * 3 : 20] = both[1, 3:15] = 1
    together = model.generate(ids, attention_mask=mask, compress_mask=both, **more)
    alone = model.generate(IDS[:1, :17], compress_mask=(both * mask)[:1, 7:], **more)
    for one, other in zip(together.logits, alone.logits, strict=True):
        torch.testing.assert_close(one[:1], other, **CLOSE)


def test_in_bf16_by_autocast_and_in_inference_mode_steps_say_what_one_pass_does():
    model = pooled()
    more = {"attention_mask": ONES, "max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = model.generate(IDS, output_logits=True, **more)
        whole = out.sequences
        expected = model(whole, compress_mask=marks(whole, N - 2)).logits[:, N - 1 : -1]
    said = torch.stack(out.logits, 1).float()
    assert (said - expected.float()).abs().max() < 0.05 * said.abs().max()  # bf16 has 8 bits
    with torch.inference_mode():
        inside = model.generate(IDS, **more).sequences
    assert inside.equal(model.generate(IDS, **more).sequences)


def test_a_negative_prompt_is_pooled_as_any():
    model, other = pooled(), tokens(n=20, seed=4)
    more = {"negative_prompt_ids": other, "negative_prompt_attention_mask": torch.ones_like(other)}
    out = model.generate(IDS, attention_mask=ONES, guidance_scale=1.5, max_new_tokens=1, do_sample=False,
                         return_dict_in_generate=True, output_scores=True, **more)  # fmt: skip
    with torch.no_grad():
        said, unwanted = (model(ids).logits[:, -1].log_softmax(-1) for ids in (IDS, other))
    torch.testing.assert_close(out.scores[0], unwanted + 1.5 * (said - unwanted), **CLOSE)


def test_it_may_assist_another_model():
    plain, more = build(), {"attention_mask": ONES[:1], "max_new_tokens": 12, "do_sample": False}
    assert plain.generate(IDS[:1], assistant_model=pooled(), **more).equal(plain.generate(IDS[:1], **more))


def test_embeddings_of_a_prompt_say_what_its_tokens_do():
    model, more = pooled(), {"attention_mask": ONES, "max_new_tokens": 4, "do_sample": False}
    more |= {"compress_mask": marks(IDS, 12), "num_beams": 2}
    embeddings = model.get_input_embeddings()(IDS)
    assert model.generate(inputs_embeds=embeddings, **more).equal(model.generate(IDS, **more)[:, N:])


def test_each_thread_asks_for_its_own_k():
    model, both, kept = pooled(), threading.Barrier(2), {}
    model.model.layers[0].register_forward_hook(lambda *_: [both.wait(timeout=20)].clear())

    def generate(k):
        out = model.generate(IDS, attention_mask=ONES, max_new_tokens=2, k=k, return_dict_in_generate=True)
        kept[k] = places(out.past_key_values, 3).shape[1]

    threads = [threading.Thread(target=generate, args=[k]) for k in (3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept == {3: 3 + 2 + 1, 7: 7 + 2 + 1}


@pytest.mark.parametrize(("name", "value", "message"), [
    ("use_cache", False, "expected use_cache, without which"),
    ("prefill_chunk_size", 8, "expected a prompt in one piece, got prefill_chunk_size"),
    ("prompt_lookup_num_tokens", 2, "assisted decoding of a pooled model is not supported"),
    ("cache_implementation", "quantized", "got cache_implementation='quantized'"),
])  # fmt: skip
def test_what_the_models_own_settings_say_counts_beside_a_given_configuration(name, value, message):
    model, given = pooled(), {"attention_mask": ONES, "generation_config": GenerationConfig(max_new_tokens=2)}
    setattr(model.generation_config, name, value)
    with pytest.raises(ValueError, match=message):
        model.generate(IDS, **given)


def test_a_given_configuration_is_stronger_than_the_models_own():
    model = pooled()
    model.generation_config.use_cache = False
    assert model.generate(IDS, GenerationConfig(max_new_tokens=2, use_cache=True)).shape == (2, N + 2)


def test_marks_with_a_negative_prompt_are_refused():
    with pytest.raises(ValueError, match="expected a compress_mask without a negative prompt"):
        pooled().generate(IDS, compress_mask=marks(IDS, 9), negative_prompt_ids=IDS, guidance_scale=2.0)


def test_a_prompt_of_one_token_and_one_that_fits_are_just_read():
    model, plain = pooled(), build()
    for ids in (IDS[:, :1], IDS[:, :6]):
        more = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
        assert model.generate(ids, **more).equal(plain.generate(ids, **more))


@pytest.mark.parametrize(("more", "message"), [
    ({"use_cache": False}, "expected use_cache, without which"),
    ({"generation_config": GenerationConfig(use_cache=False)}, "expected use_cache, without which"),
    ({"prompt_lookup_num_tokens": 2}, "assisted decoding of a pooled model is not supported; leave out"),
    ({"assistant_model": build()}, "assisted decoding of a pooled model is not supported; leave out"),
    ({"assistant_early_exit": 1}, "assisted decoding of a pooled model is not supported; leave out"),
    ({"prefill_chunk_size": 8}, "expected a prompt in one piece, got prefill_chunk_size"),
    ({"cache_implementation": "paged"}, "got cache_implementation='paged'"),
    ({"cache_implementation": "quantized"}, "got cache_implementation='quantized'"),
    ({"generation_config": GenerationConfig(cache_implementation="quantized")}, "cache_implementation='quantized'"),
    ({"attention_mask": ONES * torch.tensor([[1], [0]])}, "at least one token in each prompt .* of padding alone"),
    ({"attention_mask": ONES.masked_fill(torch.arange(N) > 20, 0)}, "expected padding on the left to generate"),
    ({"compress_mask": ONES[:, 1:]}, r"expected a compress_mask \[B, n\] of \[2, 24\] as the prompt, got \[2, 23\]"),
    ({"compress_mask": ONES}, "leaves the last token of each row whole"),
    ({"compress_mask": ONES[:1]}, r"expected a compress_mask \[B, n\] of \[2, 24\] as the prompt, got \[1, 24\]"),
    ({"compress_mask": [1, 0]}, r"expected a compress_mask \[B, n\] of \[2, 24\] as the prompt, got list"),
    ({"k": 0}, "expected k to be a whole number >= 1 or a share"),
])  # fmt: skip
def test_what_cannot_be_generated_is_told_in_a_line(more, message):
    with pytest.raises(ValueError, match=message):
        pooled().generate(IDS, **{"attention_mask": ONES, "max_new_tokens": 2} | more)


@pytest.mark.parametrize(
    "given", [{"inputs": IDS[:, :0]}, {"input_ids": IDS[:, :0]}], ids=lambda given: next(iter(given))
)
def test_a_prompt_of_no_tokens_is_told_in_a_line(given):
    with pytest.raises(ValueError, match="expected prompts of at least one token to generate, got none"):
        pooled().generate(**given, max_new_tokens=2)


def test_continuous_batching_is_refused_before_it_takes_memory():
    with pytest.raises(ValueError, match="continuous batching of a pooled model is not supported; call generate"):
        pooled().generate_batch([IDS[0].tolist()], max_new_tokens=2)


def test_padding_that_transformers_finds_itself_is_refused_on_the_right():
    ids, _ = padded(IDS, right=3)
    with pytest.raises(ValueError, match="expected padding on the left to generate"):
        pooled().generate(ids, max_new_tokens=2)
    with pytest.raises(ValueError, match="expected use_cache, without which"):
        pooled().generate(IDS, GenerationConfig(use_cache=False))


def test_marks_without_a_prompt_are_refused():
    model = pooled()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
    for n in (1, 3):
        with pytest.raises(ValueError, match="got it with the cache of a prompt; leave it out"):
            model(IDS[:, :n], past_key_values=cache, compress_mask=marks(IDS, 1, n))
    with pytest.raises(ValueError, match="got it with the cache of a prompt; leave it out"):
        model.generate(IDS, past_key_values=cache, compress_mask=marks(IDS, 5))
    with pytest.raises(ValueError, match="got it with one token; leave it out"):
        model(IDS[:, :1], compress_mask=marks(IDS, 0, 1))
    unpooled = model(IDS[:, :4], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="got it with the cache of a prompt; leave it out"):
        model(IDS[:, :3], past_key_values=unpooled, compress_mask=marks(IDS, 1, 3))


def test_a_call_that_fails_before_it_begins_leaves_the_next_as_it_is():
    model = pool_decoder(build(), {2: 3})
    expected = model(IDS).logits

    def fail(*_):
        raise RuntimeError("no")

    for module in (model, model.model):
        handle = module.register_forward_pre_hook(fail, prepend=True)
        with pytest.raises(RuntimeError, match="no"):
            model(IDS)
        handle.remove()
        torch.testing.assert_close(model(IDS).logits, expected)
