"""A causal language model that pools its prompts, loaded from a folder: its completions, alone or in a batch."""

import shutil

import pytest
import torch
from refusals import assert_refused
from tiny import LLAMA, tiny_tokenizer, tiny_writer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from shtopk.integrations.decoder import pool_decoder, record_assignments
from shtopk.models import load_checkpoint, predict
from shtopk.models.checkpoint import most_tokens
from shtopk.models.language_model import language_model as build
from shtopk.models.language_model import set_completions
from shtopk.pooling import poolings

PROMPTS = ["a b c d e f g h i j k l", "c", "k l m n a b c d goal", "", "x y z " * 10]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that was never trained, whose completions are of 6 tokens at most."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    model = pool_decoder(
        LlamaForCausalLM(LlamaConfig(**LLAMA, initializer_range=0.5)).eval(), {1: 4}, scorer="strided"
    )
    set_completions(model, max_new_tokens=6)
    model.save_pretrained(folder)
    tiny_writer().save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(checkpoint):
    return load_checkpoint(checkpoint)


def completions(model, tokenizer, texts, **options):
    return [answer.completion for answer in predict(model, tokenizer, texts, **options)]


def test_a_completion_does_not_depend_on_what_it_is_batched_with(loaded):
    together = completions(*loaded, PROMPTS)
    assert together == completions(*loaded, PROMPTS, block=1)
    assert len(set(together)) == len(PROMPTS)
    assert all(len(text.split()) <= 6 for text in together)


def test_completions_are_what_generate_adds_to_a_prompt(loaded):
    model, tokenizer = loaded
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    added = model.generate(**prompt)[0, prompt["input_ids"].shape[1] :]
    assert completions(model, tokenizer, PROMPTS[:1]) == [tokenizer.decode(added, skip_special_tokens=True)]


def test_of_long_prompts_the_end_is_read(loaded):
    model, tokenizer = loaded
    assert most_tokens(model) == 64 - 6
    assert completions(model, tokenizer, ["a " * 200 + PROMPTS[4]]) == completions(
        model, tokenizer, ["a " * 27 + PROMPTS[4]]
    )
    cut = completions(model, tokenizer, PROMPTS[:1], max_tokens=6)
    assert cut == completions(model, tokenizer, ["h i j k l"])


def test_a_model_is_loaded_with_another_k_or_none(checkpoint):
    few, _ = load_checkpoint(checkpoint, k=2)
    assert poolings(few)[0].k == 2
    whole, _ = load_checkpoint(checkpoint, unpooled=True)
    assert poolings(whole) == []


def test_a_tokenizer_without_padding_pads_with_what_ends_a_text(checkpoint, loaded):
    assert AutoTokenizer.from_pretrained(checkpoint).pad_token is None
    model, tokenizer = loaded
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("[SEP]", "left")
    assert model.generation_config.pad_token_id == tokenizer.eos_token_id == 3


def test_any_causal_language_model_completes_prompts(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=34, n_embd=16, n_layer=2, n_head=2, n_positions=200, eos_token_id=3, bos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tiny_writer().save_pretrained(tmp_path)
    model, tokenizer = load_checkpoint(tmp_path)
    assert model.generation_config.max_new_tokens == 128
    assert most_tokens(model) == 200 - 128
    assert completions(model, tokenizer, ["a " * 300])
    model.generation_config.max_new_tokens = 200
    with pytest.raises(ValueError, match="max_new_tokens below the 200 positions of the model, got 200"):
        completions(model, tokenizer, ["a"])


def test_what_prompts_cannot_be_answered_with_is_refused(loaded):
    with pytest.raises(ValueError) as caught:
        list(predict(*loaded, [("a", "b")]))
    assert_refused(str(caught.value), "pairs")


@pytest.mark.parametrize("num_beams", [1, 2])
def test_of_a_prompt_the_tokens_are_kept_that_lead_its_slots_and_those_that_are_kept_whole(loaded, num_beams):
    model, tokenizer = loaded
    model.generation_config.num_beams = num_beams
    answers = list(predict(model, tokenizer, PROMPTS, kept=True))
    assert [answer.completion for answer in answers] == completions(model, tokenizer, PROMPTS)
    for text, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        words = ["[CLS]", *text.split()]
        expected = list(range(len(words)))
        if len(words) > 5:
            with record_assignments() as found, torch.no_grad():
                model(ids)
            expected = found[0].positions[0].tolist()
        assert [one.token for one in answer.kept] == [words[at] for at in expected]
        assert [text[one.start : one.end] for one in answer.kept[1:]] == [one.token for one in answer.kept[1:]]
        assert (answer.kept[0][1:], answer.kept[-1].weight) == ((0, 0, 1.0), 1.0)


def test_what_was_kept_of_a_prompt_that_is_cut_stands_at_its_end(loaded):
    text = "a b c d e f g h"
    (answer,) = predict(*loaded, [text], max_tokens=5, kept=True)
    assert [(one.token, one.start) for one in answer.kept] == [("[CLS]", 0), *((text[i], i) for i in (8, 10, 12, 14))]


def test_a_model_that_keeps_every_token_says_nothing_of_it(checkpoint):
    with pytest.raises(ValueError) as caught:
        list(predict(*load_checkpoint(checkpoint, unpooled=True), ["a"], kept=True))
    assert_refused(str(caught.value), "kept")


@pytest.mark.parametrize(("given", "named"), [
    ({"backbone": None}, ["--backbone"]),
    ({"k_by_layer": None}, ["k_by_layer", "8:256"]),
    ({"backbone": "no/such/folder"}, ["no/such/folder"]),
    ({"backbone_sha256": "00"}, ["sha256"]),
    ({"k_by_layer": {"2": 4}}, ["1..1", "2"]),
    ({"operator": "none"}, ["operator", "none"]),
], ids=str)  # fmt: skip
def test_a_model_that_cannot_be_built_is_refused(language_model, given, named):
    with pytest.raises(ValueError) as caught:
        build(**{"backbone": str(language_model), "k_by_layer": {"1": 4}} | given)
    assert_refused(str(caught.value).replace("\n", " "), *named)


def test_weights_that_are_missing_are_refused(language_model, tmp_path):
    folder = shutil.copytree(language_model, tmp_path / "model")
    LlamaForCausalLM(LlamaConfig(**LLAMA | {"num_hidden_layers": 1})).save_pretrained(tmp_path / "small")
    shutil.copy(tmp_path / "small" / "model.safetensors", folder)
    with pytest.raises(ValueError) as caught:
        build(str(folder), {"1": 4})
    assert_refused(str(caught.value), "model.layers.1.input_layernorm.weight")


def test_the_likeliest_tokens_are_written_unless_told_otherwise(language_model):
    model = build(str(language_model), {"1": 4})
    model.generation_config.update(do_sample=True, min_p=0.1, repetition_penalty=1.1, eos_token_id=[3, 5])
    with pytest.raises(ValueError, match=r"less than 64 tokens.* got 64; lower max_completion_tokens"):
        set_completions(model, max_new_tokens=64)
    with pytest.raises(ValueError):
        set_completions(model, max_new_tokens=4, num_beams=1, early_stopping=True, length_penalty=2.0)
    set_completions(model, max_new_tokens=4)
    found = model.generation_config
    assert (found.do_sample, found.repetition_penalty, found.eos_token_id) == (False, None, [3, 5])
    set_completions(model, max_new_tokens=4, do_sample=True, top_p=0.5)
    assert (model.generation_config.do_sample, model.generation_config.top_p) == (True, 0.5)


def test_a_special_token_that_ends_a_prompt_is_left_out(checkpoint, tmp_path):
    said = []
    for name, tokenizer in (("ended", tiny_tokenizer()), ("plain", tiny_writer())):
        folder = shutil.copytree(checkpoint, tmp_path / name)
        tokenizer.add_special_tokens({"eos_token": "[SEP]", "pad_token": "[PAD]"})
        tokenizer.save_pretrained(folder)
        said.append(completions(*load_checkpoint(folder), PROMPTS[:3]))
    assert said[0] == said[1]
