"""The page that shows what was kept: escaped, complete in itself, right about the tokens, kind about bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import HOSTILE, Text, harmless, refusal
from safetensors.torch import load_file, save_file
from tiny import BERT, tiny_tokenizer
from transformers import BertConfig, BertForTokenClassification

from shtopk.commands.show import main
from shtopk.models import TopKPoolingForSequenceClassification
from shtopk.show import Slot, page
from shtopk.show.answer import show_document

from_backbone = TopKPoolingForSequenceClassification.from_backbone
CLASSES = {"id2label": {0: "sport", 1: "<b>money</b>"}, "num_labels": 2}
TEXT = "a goal b match c d bank e f shares"


@pytest.fixture(scope="module")
def checkpoint(encoder, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    from_backbone(encoder, k=4, **CLASSES).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_the_page_shows_the_document_as_it_is_with_the_kept_tokens_marked():
    text = "Big <script>alert(1)</script> & small"
    html = page(text, [(0, 0), (0, 3), (32, 37)], [Slot(2, [(2, 0.75), (1, 0.25)])], [("x", 1.0)], title="t")
    shown = Text(html)
    assert shown.document == text
    assert shown.marked == ["small"]
    assert 'style="--w:0.25" title="token 1, slot 1, weight 0.250">Big<' in html


def test_whatever_the_texts_hold_they_are_shown_and_nothing_of_them_is_run():
    spans = [(i, i + 1) for i in range(len(HOSTILE))]
    slots = [Slot(place, [(place, 0.6), ((place + 1) % len(spans), 0.4)]) for place in range(0, len(spans), 2)]
    for kept in (slots, [Slot(0, [(0, 1.0)])]):
        html = page(HOSTILE, spans, kept, [(HOSTILE, 0.9), ("x", 0.1)], title=HOSTILE, label=HOSTILE, facts=[HOSTILE])
        shown = harmless(html)
        assert shown.document == HOSTILE
        assert shown.said.count(HOSTILE) >= 4  # title, headline, remark, class
        assert html.count("true class") == 1


def test_tokens_without_weight_are_left_plain():
    text = "word " * 100_000
    spans = [(5 * i, 5 * i + 4) for i in range(100_000)]
    html = page(text, spans, [Slot(7, [(7, 0.9), (8, 0.1), (9, 1e-4)])], [("x", 1.0)], title="t")
    assert html.count('title="token') == 2
    assert len(html) < len(text) + 10_000


def test_a_token_in_several_slots_shows_its_largest_weight():
    slots = [Slot(0, [(0, 0.7), (1, 0.3)], 2.0), Slot(1, [(1, 0.9), (0, 0.1)], 1.0)]
    html = page("a b", [(0, 1), (2, 3)], slots, [("x", 1.0)], title="t")
    assert 'title="token 0, slot 1, weight 0.700, score 2.00">a<' in html
    assert 'title="token 1, slot 2, weight 0.900, score 1.00">b<' in html


def test_a_piece_is_listed_with_the_word_it_belongs_to():
    html = page("two laptops", [(4, 10)], [Slot(0, [(0, 1.0)])], [("x", 1.0)], title="t")
    assert '<a href="#t0">laptop<small>s</small></a>' in html
    assert 'id="t0"' in html


def dead_links(html):
    return set(re.findall(r'href="#(.*?)"', html)) - set(re.findall(r' id="(.*?)"', html))


EMOJI, BYTES = "x 😀 y", [(0, 1), (2, 3), (2, 3), (4, 5)]


def test_tokens_of_one_character_are_marked_together_if_one_of_them_leads():
    html = page(EMOJI, BYTES, [Slot(2, [(1, 0.4), (2, 0.6)])], [("a", 1.0)], title="t")
    assert Text(html).marked == ["😀"] and Text(html).document == EMOJI
    assert '<mark id="t2" style="--w:1.00" title="tokens 1+2, slot 1, weight 1.000">' in html
    html = page(EMOJI, BYTES, [Slot(0, [(0, 0.6), (1, 0.3), (2, 0.1)])], [("a", 1.0)], title="t")
    assert '<span style="--w:0.40" title="tokens 1+2, slot 1, weight 0.400">😀</span>' in html


def test_weights_of_different_slots_are_not_added():
    slots = [Slot(1, [(1, 0.7), (0, 0.3)], 2.0), Slot(2, [(2, 0.6), (1, 0.3), (3, 0.1)], 1.0)]
    html = page(EMOJI, BYTES, slots, [("a", 1.0)], title="t")
    assert 'title="tokens 1+2, slot 2, weight 0.900, score 1.00">😀' in html


def test_each_leader_of_one_character_has_a_place_that_its_links_lead_to():
    slots = [Slot(2, [(2, 1.0)]), Slot(1, [(1, 1.0)]), Slot(3, [(3, 1.0)])]
    html = page(EMOJI, BYTES, slots, [("a", 1.0)], title="t")
    assert not dead_links(html) and all(html.count(f' id="t{token}"') == 1 for token in (1, 2, 3))
    assert Text(html).marked == ["😀", "y"]


def test_tokens_that_share_some_of_their_characters_are_drawn_as_one_and_neighbours_are_not():
    spans = [(0, 1), (1, 3), (2, 4), (4, 6), (3, 4)]  # the last one stands out of order
    html = page("ab😀😁cd", spans, [Slot(i, [(i, 1.0)]) for i in range(5)], [("a", 1.0)], title="t")
    assert Text(html).marked == ["a", "b😀😁", "cd"] and Text(html).document == "ab😀😁cd"
    assert 'title="tokens 1+2+4, ' in html and not dead_links(html)


def test_a_text_from_right_to_left_is_laid_out_so_wherever_it_stands():
    text, title, label = "قال بنك في لندن", "عنوان", "مال"
    slots, spans = [Slot(0, [(0, 0.7), (1, 0.3)])], [(0, 3), (4, 7)]
    for kept in (slots, None):
        html = page(text, spans, kept, [(label, 1.0)], title=title, label=label)
        assert re.search(rf'<h1 dir="auto">{title}<', html)
        assert re.search(rf'<p class="document" dir="auto">{text if kept is None else "<mark"}', html)
        assert re.search(rf'<div class="first" dir="auto">{label} <b>true class</b>', html)
    html = page(text, spans, slots, [(label, 3.5), ("b", 1.0)], title=title, problem_type="regression")
    assert f'<div dir="auto">{label}</div>' in html
    assert f'<td dir="auto"><a href="#t0">{text[:3]}</a>' in html
    assert f'<span dir="auto">{text[4:7]}</span> <small>0.30' in html


def test_the_true_class_is_named_however_unlikely():
    classes = [(f"class {i}", 0.05 - i / 1000) for i in range(20)]
    html = page("a", [(0, 1)], [Slot(0, [(0, 1.0)])], classes, title="t", label="class 19")
    assert "class 19 <b>true class</b>" in html
    assert "class 18" not in html
    assert html.count("true class") == 1


@pytest.mark.parametrize(("fields", "text"), [({}, TEXT), ({"window": 8, "window_k": 3}, f"{TEXT} " * 9)])
def test_what_the_last_step_of_a_models_pooling_kept_is_marked(encoder, fields, text):
    model, tokenizer = from_backbone(encoder, k=4, **CLASSES, **fields).eval(), tiny_tokenizer()
    html = show_document(model, tokenizer, text, label="sport")
    kept = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).assignment.positions[0].tolist()
    words = text.split()
    assert Text(html).marked == [words[position - 1] for position in sorted(kept) if 0 < position <= len(words)]
    assert "sport <b>true class</b>" in html
    assert "&lt;b&gt;money" in html


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard_gated"])
@pytest.mark.parametrize("text", ["", "a", "a b " * 2000, f"a goal {HOSTILE}\n{HOSTILE} b"])
def test_any_text_makes_a_harmless_page(encoder, operator, text):
    model = from_backbone(encoder, k=4, id2label={0: HOSTILE, 1: "x"}, num_labels=2, operator=operator)
    shown = harmless(show_document(model, tiny_tokenizer(), text, label=HOSTILE))
    assert shown.document == text and f"{HOSTILE} true class" in shown.said


@pytest.mark.parametrize("damaged", [True, False])
def test_the_command_writes_a_page(checkpoint, tmp_path, capsys, damaged):
    document, output = tmp_path / "text.txt", tmp_path / "page.html"
    document.write_bytes(b"a goal \xff b" if damaged else "a goal \ufffd b".encode())
    assert main([str(checkpoint), str(document), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    said = [f"{document} is not valid UTF-8 throughout; such bytes are shown as \ufffd"]
    assert printed.err.splitlines() == (said if damaged else [])
    assert re.fullmatch(rf"(sport|<b>money</b>) \(\d+\.\d %\), see {re.escape(str(output))}\n", printed.out)
    assert "\ufffd" in output.read_text(encoding="utf-8")


@pytest.mark.slow
def test_code_in_a_checkpoint_is_not_run_and_nothing_asks_whether_it_may(checkpoint, tmp_path):
    folder, document, page = tmp_path / "folder", tmp_path / "text.txt", tmp_path / "page.html"
    shutil.copytree(checkpoint, folder)
    for path in folder.glob("*.py"):
        path.write_text("raise SystemExit('it ran')")
    document.write_text("a goal")
    done = subprocess.run(
        [sys.executable, "-m", "shtopk.show", str(folder), str(document), "--output", str(page)],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"HF_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert list(folder.glob("*.py")) and page.is_file()


def without_configuration(folder):
    (folder / "config.json").unlink()


def damaged(folder):
    (folder / "model.safetensors").write_bytes(b"\x01" * 64)


def incomplete(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "classifier" not in name}, folder / "model.safetensors")


def of_another_size(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"classifier.weight": torch.zeros(3, 32)}, folder / "model.safetensors")


def with_another_tokenizer(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(folder)


def with_code_for_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "other"}))


def foreign(folder):
    BertForTokenClassification(BertConfig(**BERT)).save_pretrained(folder)


@pytest.mark.parametrize(("change", "message"), [
    (without_configuration, "expected a checkpoint with a config.json"),
    (damaged, "cannot load the checkpoint"),
    (incomplete, "the weights lack classifier.bias, classifier.weight"),
    (of_another_size, "the weights have other shapes than config.json says"),
    (with_another_tokenizer, "expected a tokenizer of at most 34 words, got one of 35"),
    (with_code_for_another_model, "needs code that lies in the checkpoint, which is never run"),
    (foreign, "expected a classifier of documents, a summarizer or a language model"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_one_line(change, message, checkpoint, tmp_path, capsys):
    shutil.copytree(checkpoint, tmp_path / "folder")
    change(tmp_path / "folder")
    assert message in refusal(tmp_path / "folder", __file__, capsys)


def test_a_missing_document_is_refused_in_one_line(checkpoint, tmp_path, capsys):
    assert "none.txt: No such file" in refusal(checkpoint, tmp_path / "none.txt", capsys)


@pytest.mark.parametrize(("error", "said", "code"), [
    (MemoryError(), "memory", 1),
    (KeyboardInterrupt(), "stopped", 130),
])  # fmt: skip
def test_what_ends_it_early_is_said_in_one_line(error, said, code, checkpoint, tmp_path, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("shtopk.show.answer.answer_and_page", fail)
    (tmp_path / "text.txt").write_text("a goal")
    with pytest.raises(SystemExit) as ended:
        main([str(checkpoint), str(tmp_path / "text.txt"), "--output", str(tmp_path / "page.html")])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == code and line.startswith("shtopk show: ") and said in line


def test_a_page_that_exists_is_not_replaced_unasked(checkpoint, tmp_path, capsys):
    document, output = tmp_path / "a.txt", tmp_path / "a.html"
    document.write_text("a b")
    output.write_text("mine")
    words = [str(checkpoint), str(document), "--output", str(output)]
    assert main(words) == 2
    assert "a.html exists; name another page with --output" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*words, "--overwrite", "true"]) == 0
    assert output.read_text() != "mine"
