"""The page of a prompt that was completed: which of its tokens were kept, and which of them each word attended to."""

import re

import pytest
import torch
from decoders import CLOSE, FIELDS, NAMES, WINDOWS, build, tokens
from pages import HOSTILE, Text, harmless, refusal
from tiny import LLAMA, tiny_writer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from shtopk.commands.show import main
from shtopk.integrations.decoder import pool_decoder, record_assignments
from shtopk.models.language_model import let_complete, set_completions
from shtopk.show.answer import answer_and_page
from shtopk.show.completion import attention_to_prompt, describe_completion

TEXT = "a goal b match c d bank e f shares g h i j k l m n o p"


def talkative(model, tokens=4):
    set_completions(model, max_new_tokens=tokens, min_new_tokens=tokens, suppress_tokens=[0, 1, 2, 3])
    let_complete(model, tiny_writer())
    return model.eval()


def llama(**fields):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**LLAMA | {"num_hidden_layers": 4, "initializer_range": 0.5} | fields))


@pytest.fixture
def model():
    return talkative(pool_decoder(llama(), {2: 6}))


@pytest.fixture
def checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_writer().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


CASES = [*((name, FIELDS) for name in NAMES), *((name, WINDOWS) for name in WINDOWS)]


@pytest.mark.parametrize("poolings", [{1: 9, 2: 0.3}, {2: 99}, None], ids=["pooled", "short", "unpooled"])
@pytest.mark.parametrize(("name", "fields"), CASES, ids=[f"{name} {fields is WINDOWS}" for name, fields in CASES])
def test_attention_is_that_of_one_pass_over_all(name, fields, poolings):
    model = build(name, fields=fields)
    if poolings:
        pool_decoder(model, poolings, keep_last=2)
    whole, n = tokens(1, 27), 22
    with record_assignments() as found, torch.no_grad():
        model(whole[:, :n])
        kept = found[0].mask.shape[1] if poolings else n
        got = attention_to_prompt(model, whole, n, kept)
        model.set_attn_implementation("eager")
        labels = whole[:, :-1].masked_fill(torch.arange(26) < n, -100)
        layers = model(whole[:, :-1], labels=labels, output_attentions=True, use_cache=False).attentions
    expected = torch.stack([layer[0].mean(0)[-5:, :kept] for layer in layers[2 if poolings else 0 :]]).mean(0)
    torch.testing.assert_close(got.float(), expected, **CLOSE)
    assert model.config._attn_implementation == "eager"


def test_the_page_shows_what_was_kept_and_what_was_said(model):
    tokenizer = tiny_writer()
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with record_assignments() as found:
        said = tokenizer.decode(model.generate(ids)[0, ids.shape[1] :])
    line, html = answer_and_page(model, tokenizer, TEXT, reference="match shares")
    shown = harmless(html)
    words = TEXT.split()
    assert line == said and len(said.split()) == 4
    assert shown.document == TEXT
    assert shown.marked == [words[at - 1] for at in found[0].positions[0].tolist() if at]
    assert "7 of 21 tokens kept from layer 2 on" in shown.said and "4 tokens generated" in shown.said
    assert "reference match shares" in shown.said and "whole completion" in shown.said
    assert "all that the layers above the pooling saw" in shown.said


def test_attention_to_the_first_token_is_left_out_where_there_is_another(model):
    for token in describe_completion(model, tiny_writer(), TEXT)["tokens"]:
        assert token.attention[0] == 0 and sum(token.attention) == pytest.approx(1)
    (token, *_) = describe_completion(model, tiny_writer(), "")["tokens"]
    assert token.attention == [1]


@pytest.mark.parametrize("text", ["", "a", "a b " * 500, HOSTILE], ids=["empty", "a word", "long", "hostile"])
@pytest.mark.parametrize("poolings", [{2: 6}, {1: 0.5, 3: 4}, None], ids=str)
def test_any_prompt_makes_a_harmless_page(poolings, text):
    model = llama() if poolings is None else pool_decoder(llama(), poolings)
    line, html = answer_and_page(talkative(model), tiny_writer(), text)
    assert harmless(html).document == text and line
    assert ("the last 60 tokens read" in html) == (len(text) > 1000)


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    signs = Tokenizer(models.BPE({sign: i for i, sign in enumerate(["<pad>", *alphabet])}, []))
    signs.pre_tokenizer, signs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=signs, pad_token="<pad>", eos_token="<pad>")


@pytest.mark.parametrize("text", ["😀😁😂🤣 goal 🎉🎊", "مرحبا بالعالم"])
def test_tokens_that_are_bytes_of_a_character_are_marked_and_linked(text):
    model = pool_decoder(llama(vocab_size=257, bos_token_id=None, eos_token_id=0), {2: 8}).eval()
    set_completions(model, max_new_tokens=4, min_new_tokens=4)
    html = answer_and_page(model, byte_tokenizer(), text)[1]
    shown = harmless(html)
    slots = describe_completion(model, byte_tokenizer(), text)["slots"]
    spans = byte_tokenizer()(text, return_offsets_mapping=True)["offset_mapping"]
    assert shown.document == text
    assert shown.marked == [text[start:end] for start, end in sorted({spans[slot.position] for slot in slots})]
    assert not set(re.findall(r'href="#(t\d+)"', html)) - set(re.findall(r' id="(t\d+)"', html))
    assert set(re.findall(r"--(t\d+):", html)) <= set(re.findall(r"var\(--(t\d+),", html))  # each shade is seen


def test_a_completion_that_is_empty_is_told(model):
    model.generation_config.update(min_new_tokens=0, suppress_tokens=list(range(3)) + list(range(4, 34)))
    line, html = answer_and_page(model, tiny_writer(), TEXT)
    assert line == "no completion" and 'class="output" dir="auto"></p>' in html


def test_the_first_of_several_beams_is_shown(model):
    model.generation_config.num_beams = 3
    tokenizer = tiny_writer()
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert answer_and_page(model, tokenizer, TEXT)[0] == tokenizer.decode(model.generate(ids)[0, ids.shape[1] :])


def test_an_adapter_is_shown_as_the_model_that_it_is_on(model):
    peft = pytest.importorskip("peft")
    expected = answer_and_page(model, tiny_writer(), TEXT)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert answer_and_page(adapted, tiny_writer(), TEXT) == expected
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=repr)
def test_the_end_of_a_files_last_line_is_no_part_of_the_prompt(checkpoint, model, tmp_path, capsys, end):
    (tmp_path / "prompt.txt").write_bytes((TEXT + end).encode())
    output = tmp_path / "page.html"
    assert main([str(checkpoint), str(tmp_path / "prompt.txt"), "--output", str(output)]) == 0
    said, _ = answer_and_page(model, tiny_writer(), TEXT)
    assert capsys.readouterr().out == f"{said}, see {output}\n"
    assert Text(output.read_text()).document == TEXT


def test_what_is_no_prompt_is_refused_in_one_line(checkpoint, model, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("a")
    assert main([str(checkpoint), str(tmp_path / "prompt.txt"), "--pair", str(tmp_path / "prompt.txt")]) == 2
    assert re.fullmatch(r"shtopk.show: expected one text as a prompt, got a pair\n", capsys.readouterr().err)
    assert "cannot read" in refusal(checkpoint, tmp_path / "none.txt", capsys)
    with pytest.raises(ValueError, match="max_tokens > 1"):
        describe_completion(model, tiny_writer(), "a", max_tokens=1)
