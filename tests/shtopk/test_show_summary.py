"""The page of a summary: which kept tokens each of its tokens came from, chosen without scripts."""

import re
import shutil
from html import unescape

import pytest
import torch
from pages import HOSTILE, Text, harmless, refusal
from safetensors.torch import load_file, save_file
from seq2seq_families import FAMILIES, build
from tiny import WORDS, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shtopk.commands.show import main
from shtopk.models import TopKPoolingForConditionalGeneration
from shtopk.show import OutputToken, Slot
from shtopk.show import summary_page as page_with_fixed_spaces
from shtopk.show.answer import show_document
from shtopk.show.describe import describe_summary, eager_attention, pieces

TEXT = "a goal b match c d bank e f shares"
SPANS = [(0, 1), (2, 6), (7, 8)]  # of "a goal b"
SLOTS = [Slot(1, [(1, 0.75), (0, 0.25)]), Slot(2, [(2, 1.0)])]


def talkative(model, tokens=6):
    model.generation_config.update(max_new_tokens=tokens, min_new_tokens=tokens, suppress_tokens=[0, 1, 2, 3])
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(encoder, tmp_path_factory):
    """A joined encoder and decoder with a copy head."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    talkative(TopKPoolingForConditionalGeneration.from_backbone(encoder, k=4, copy_head=True)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


# What the model is asked


@pytest.mark.parametrize("copy_head", [False, True], ids=["no copy head", "copy head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_has_the_attention_that_it_was_generated_with(family, copy_head):
    model, tokenizer = talkative(build(family, copy_head=copy_head)), tiny_tokenizer()
    before = [module.config._attn_implementation for module in model.modules() if hasattr(module, "config")]
    tokens = describe_summary(model, tokenizer, TEXT)["tokens"]
    assert before == [module.config._attn_implementation for module in model.modules() if hasattr(module, "config")]

    inputs = tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)
    model.set_attn_implementation("eager")
    generated = model.generate(**inputs, output_attentions=True, return_dict_in_generate=True)
    assert "".join(token.text for token in tokens) == tokenizer.decode(generated.sequences[0, 1:])
    for token, layers in zip(tokens, generated.cross_attentions, strict=True):
        expected = torch.stack(layers).mean((0, 2))[0, -1]  # over layers and heads
        torch.testing.assert_close(torch.tensor(token.attention), expected, rtol=1e-4, atol=1e-5)
        assert sum(token.attention) == pytest.approx(1)
        assert (token.pointing is not None) == copy_head
        assert token.pointing is None or sum(token.pointing) == pytest.approx(1)


def test_how_much_was_copied_is_what_the_gate_lets_through():
    model, tokenizer = talkative(build(copy_head=True)), tiny_tokenizer()
    for bias, copied in ((50.0, 0.0), (-50.0, 1.0)):
        with torch.no_grad():
            model.copy_head.gate.bias.fill_(bias)
        tokens = describe_summary(model, tokenizer, TEXT)["tokens"]
        assert len(tokens) == 6 and all(token.copying == pytest.approx(copied, abs=1e-3) for token in tokens)
        assert all(token.copied == pytest.approx(copied, abs=1e-3) for token in tokens)
    assert all(token.text.strip() in TEXT.split() for token in tokens)


def test_what_the_document_does_not_hold_was_not_copied():
    model, tokenizer = talkative(build(copy_head=True)), tiny_tokenizer()
    with torch.no_grad():
        model.copy_head.gate.bias.fill_(0)
        model.generation_config.suppress_tokens = list(range(20))  # nothing special, no a to p
    tokens = describe_summary(model, tokenizer, "a b c d e f g h")["tokens"]
    assert len(tokens) == 6 and all(token.copying > 0.2 and token.copied == 0 for token in tokens)


def test_attention_is_eager_for_a_while_and_again_as_before_whatever_happens():
    decoder, seen = build().backbone.get_decoder(), []
    with pytest.raises(ZeroDivisionError), eager_attention(decoder):
        seen.append(decoder.config._attn_implementation) or 1 / 0
    assert [*seen, decoder.config._attn_implementation] == ["eager", "sdpa"]


@pytest.mark.parametrize("text", ["", "a", "a b " * 500, HOSTILE], ids=["empty", "a word", "long", "hostile"])
@pytest.mark.parametrize("fields", [
    {},
    {"copy_head": True},
    {"operator": "iterative", "copy_head": True},
    {"operator": "hard_gated"},
    {"window": 16, "window_k": 3, "copy_head": True},
    {"k": 0.5},
], ids=lambda fields: " ".join(map(str, fields.values())) or "default")  # fmt: skip
def test_any_text_makes_a_harmless_page(fields, text):
    html = show_document(talkative(build(**fields)), tiny_tokenizer(), text, reference=HOSTILE)
    shown = harmless(html)
    assert shown.document == text and f"reference {HOSTILE}" in shown.said
    assert html.count('class="token" style') == 6


def test_a_summary_of_nothing_says_so():
    model = build()
    model.generation_config.update(max_new_tokens=4, suppress_tokens=list(range(4, len(tiny_tokenizer()))))
    html = show_document(model, tiny_tokenizer(), TEXT)
    assert '<p class="output" dir="auto"></p>' in html
    assert "Token by token" not in html and "0 tokens generated" in html


def test_a_document_is_read_as_far_as_the_model_is_asked_to():
    model, tokenizer = talkative(build()), tiny_tokenizer()
    cut = describe_summary(model, tokenizer, "a b c d e f g h i j k", max_tokens=7)
    assert cut["tokens"] == describe_summary(model, tokenizer, "a b c d e")["tokens"]


def test_a_character_of_several_tokens_belongs_to_its_last():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    bytes_.pre_tokenizer, bytes_.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_)
    assert pieces(tokenizer, tokenizer("a é.")["input_ids"]) == ["a", " ", "", "é", "."]
    assert pieces(tokenizer, tokenizer("é")["input_ids"][:1]) == ["\ufffd"]


# What the page shows


def summary_page(*arguments, **options):
    return page_with_fixed_spaces(*arguments, **options).replace("\u00a0", " ")


def rules(html):
    """Number of a choice -> {token of the document: how strongly it is shaded}, as the style sheet says."""
    found = re.findall(r"body:has\(#o(\d+):checked\):not.*?\{--d\1:block;(.*?)\}", html)
    return {
        int(number): {int(token): float(shade) for token, shade in re.findall(r"--t(\d+):([\d.]+);", shades)}
        for number, shades in found
    }


def test_choosing_a_token_shades_what_it_came_from_and_shows_its_shares():
    tokens = [OutputToken("goal", [0.9, 0.1]), OutputToken(" b", [0.0, 1.0])]
    html = summary_page("a goal b", SPANS, SLOTS, tokens, title="t")
    assert rules(html) == {
        0: {2: 1.0, 1: round(0.45 * 0.75 / 0.55, 2), 0: round(0.45 * 0.25 / 0.55, 2)},  # the whole summary
        1: {1: 1.0, 0: round(0.25 / 0.75, 2), 2: round(0.1 / (0.9 * 0.75), 2)},
        2: {2: 1.0},
    }
    assert '<mark id="t1" style="--w:0.75;--a:var(--t1,0)"' in html
    details = re.findall(r'<div class="detail" style="display:var\(--d(\d),none\)">(.*?)</div></div></div>', html)
    shares = {number: re.findall(r'#t(\d+)".*?class="p">(\d+ %)', detail) for number, detail in details}
    assert shares == {"0": [("2", "55 %"), ("1", "45 %")], "1": [("1", "90 %"), ("2", "10 %")], "2": [("2", "100 %")]}
    assert 'id="o1">goal</label> <label' in html  # the space of " b" stands between them
    assert html.count("checked>") == 1 and "copied" not in html.split("<body>")[1]


def test_with_a_copy_head_the_shading_is_where_it_points_as_far_as_it_copied():
    tokens = [OutputToken("goal", [0.0, 1.0], pointing=[1.0, 0.0], copying=0.6, copied=0.8)]
    html = summary_page("a goal b", SPANS, SLOTS, tokens, title="t")
    assert rules(html)[0] == rules(html)[1] == {1: 1.0, 0: 0.33, 2: 0.33}  # 0.6, 0.2, 0.2
    assert '<label class="token" style="--c:0.80"><input type="radio" name="token" id="o1">goal</label>' in html
    assert "80 % copied, the gate 60 % open to copying" in html
    (row,) = re.findall(r"<tr><td[^>]*><label for=.*</tr>", html)
    cells = [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", row)]
    assert cells == ["goal", "80 %", "goal 100 %", "b 100 %"]


def test_places_where_the_same_word_stands_count_as_one_source():
    slots = [Slot(1, [(1, 1.0)]), Slot(1, [(1, 0.6), (2, 0.4)]), Slot(0, [(0, 1.0)])]
    tokens = [OutputToken("x", [0.5, 0.25, 0.25])]
    html = summary_page("a goal b", SPANS, slots, tokens, title="t")
    assert '<a href="#t1">goal</a></span> <small>75 %</small>, ' in html
    assert '<a href="#t0">a</a></span> <small>25 %</small></td>' in html
    cell = '<a href="#t1">Goal</a> <small>&times;2</small></span> <small>100 %</small></td>'
    assert cell in summary_page("goal Goal", [(0, 4), (5, 9), (9, 9)], slots, tokens, title="t")


def test_tokens_of_one_character_are_shaded_by_what_they_have_together():
    spans, slots = [(0, 1), (2, 3), (2, 3), (4, 5)], [Slot(2, [(1, 0.4), (2, 0.6)]), Slot(3, [(3, 1.0)])]
    html = summary_page("x 😀 y", spans, slots, [OutputToken("z", [0.5, 0.5])], title="t")
    assert rules(html)[1] == {1: 1.0, 3: 1.0}
    assert '<mark id="t2" style="--w:1.00;--a:var(--t1,0)" title="tokens 1+2, slot 1, weight 1.000">😀</mark>' in html
    assert re.search('<a href="#t2" style="left:40.00%;--a:var\\(--t1,0\\)">', html)
    assert not set(re.findall(r"--(t\d+):", html)) - set(re.findall(r"var\(--(t\d+),", html))


def test_a_summary_from_right_to_left_is_laid_out_so_wherever_it_stands():
    tokens = [OutputToken("بنك", [1.0]), OutputToken(" لندن", [1.0])]
    slots = [Slot(0, [(0, 1.0)])]
    html = summary_page("قال بنك", [(0, 3), (4, 7)], slots, tokens, title="عنوان", reference="مرحبا")
    assert '<p class="output" dir="auto"><label' in html and '<p class="document" dir="auto"><mark' in html
    # What is ours in front of the text has a direction of its own: else it would decide.
    assert '<p class="reference" dir="auto"><b dir="ltr">reference</b> مرحبا</p>' in html
    assert '<b dir="auto">بنك</b>' in html and '<td dir="auto"><label for="o1">بنك<' in html
    assert html.count('<span dir="auto"><a href="#t0">قال</a></span>') == 3 + 2  # in the details, and the table


@pytest.mark.parametrize("copied", [0.0, 1.0])
def test_whatever_a_summary_and_its_reference_hold_nothing_of_them_is_run(copied):
    spans = [(i, i + 1) for i in range(len(HOSTILE))]
    slots = [Slot(0, [(0, 1.0)]), Slot(1, [(1, 0.5), (2, 0.5)])]
    tokens = [OutputToken(text, [0.5, 0.5], [1.0, 0.0], copied, copied) for text in (HOSTILE, f" {HOSTILE}", "\0", "")]
    texts = {"title": HOSTILE, "reference": HOSTILE, "facts": [HOSTILE, HOSTILE]}
    shown = harmless(page_with_fixed_spaces(HOSTILE, spans, slots, tokens, **texts))
    assert shown.document == HOSTILE
    assert f"reference {HOSTILE}" in shown.said and shown.said.count(HOSTILE) >= 2 + 2 + 1 + 3 * 2 + 1


def test_markup_that_a_model_generates_is_shown_as_text(monkeypatch):
    monkeypatch.setattr("tiny.WORDS", ["<script>alert('&')</script>" if word == "goal" else word for word in WORDS])
    model = talkative(build(copy_head=True))
    model.generation_config.suppress_tokens = [i for i, word in enumerate(WORDS) if word != "goal"]
    shown = harmless(show_document(model, tiny_tokenizer(), "a b"))
    assert shown.said.count("<script>alert('&')</script>") >= 6


def test_the_page_of_a_long_document_stays_small():
    count = 100_000
    spans = [(5 * i, 5 * i + 4) for i in range(count)]
    slots = [Slot(i, [(i, 1 - 1e-3 * (count // 32 - 1))] + [(i + j, 1e-3) for j in range(1, count // 32)])
             for i in range(0, count, count // 32)]  # fmt: skip
    tokens = [OutputToken(" word", [1 / len(slots)] * len(slots))] * 100
    html = summary_page("word " * count, spans, slots, tokens, title="t")
    assert len(html) < 5 * count + 400_000


# The command


def test_the_command_writes_the_page_of_a_summary(checkpoint, tmp_path, capsys):
    document, output = tmp_path / "text.txt", tmp_path / "page.html"
    document.write_text(TEXT)
    assert main([str(checkpoint), str(document), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(rf"([a-z]+ ){{5}}[a-z]+, see {re.escape(str(output))}\n", printed.out) and not printed.err
    assert Text(output.read_text(encoding="utf-8")).document == TEXT


def test_a_summarizer_without_its_copy_head_is_refused_in_one_line(checkpoint, tmp_path, capsys):
    folder = shutil.copytree(checkpoint, tmp_path / "folder")
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "copy_head" not in name}, folder / "model.safetensors")
    assert "the weights lack copy_head.gate.bias" in refusal(folder, __file__, capsys)
