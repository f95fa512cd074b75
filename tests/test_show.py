"""The page that shows what was kept: escaped, complete in itself, right about the tokens, kind about bad input."""

import re
from html.parser import HTMLParser

import pytest
import torch
from conftest import tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification

import models  # noqa: F401  (registers the classes)
from models import load_pretrained_classifier
from shtopk.integrations.transformers import load_classifier, show_document
from shtopk.show import Slot, main, page


@pytest.fixture(scope="module")
def checkpoint(encoder, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    load_pretrained_classifier(encoder, k=4, id2label={0: "sport", 1: "<b>money</b>"}, num_labels=2).save_pretrained(
        folder
    )
    tiny_tokenizer().save_pretrained(folder)
    return folder


class Text(HTMLParser):
    """The document of a page, as a reader sees it, and the marked parts."""

    def __init__(self, html):
        super().__init__()
        self.inside, self.document, self.marked, self.tag = False, "", [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if ("class", "document") in attributes:
            self.inside = True
        self.tag = tag

    def handle_endtag(self, tag):
        if tag == "p":
            self.inside = False
        self.tag = None

    def handle_data(self, data):
        if self.inside:
            self.document += data
            if self.tag == "mark":
                self.marked.append(data)


def test_the_page_shows_the_document_as_it_is_with_the_kept_tokens_marked():
    text = "Big <script>alert(1)</script> & small"
    html = page(text, [(0, 0), (0, 3), (32, 37)], [Slot(2, [(2, 0.75), (1, 0.25)])], [("x", 1.0)], title="<i>")
    assert "<script" not in html
    assert "<i>" not in html
    shown = Text(html)
    assert shown.document == text
    assert shown.marked == ["small"]
    assert 'style="--w:0.25" title="token 1, weight 0.250">Big<' in html


def test_the_page_asks_nothing_of_the_network():
    html = page("a", [(0, 1)], [Slot(0, [(0, 1.0)])], [("x", 1.0)], title="t")
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|src=|@import|url\(", html.replace("default-src", ""))


def test_a_document_is_shown_with_what_the_model_kept(checkpoint):
    model, tokenizer = load_classifier(checkpoint)
    text = "a goal b match c d bank e f shares"
    html = show_document(model, tokenizer, text, label="sport")
    kept = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).positions[0].tolist()
    words = text.split()
    assert Text(html).marked == [words[position - 1] for position in kept if 0 < position <= len(words)]
    assert "true class sport" in html
    assert "&lt;b&gt;money" in html


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard_gated"])
@pytest.mark.parametrize("text", ["", "a", "a b " * 2000])
def test_any_text_makes_a_page(encoder, operator, text):
    model = load_pretrained_classifier(encoder, k=4, num_labels=2, operator=operator)
    assert Text(show_document(model, tiny_tokenizer(), text)).document == text


def test_the_command_writes_a_page(checkpoint, tmp_path, capsys):
    document, output = tmp_path / "text.txt", tmp_path / "page.html"
    document.write_bytes(b"a goal \xff b")
    assert main([str(checkpoint), str(document), "--output", str(output)]) == 0
    assert "not valid UTF-8" in capsys.readouterr().err
    assert "\ufffd" in output.read_text(encoding="utf-8")


def damaged(folder, source):
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.safetensors").write_bytes(b"\x01" * 64)


def foreign(folder, source):
    BertForSequenceClassification(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=40)
    ).save_pretrained(folder)


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda folder, source: None, "expected a checkpoint with a config.json"),
    (damaged, "cannot load the checkpoint"),
    (foreign, "expected a model of type topk_pooling, got bert"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_one_line(prepare, message, checkpoint, tmp_path, capsys):
    folder, document = tmp_path / "folder", tmp_path / "text.txt"
    folder.mkdir()
    document.write_text("a")
    prepare(folder, checkpoint)
    capsys.readouterr()
    assert main([str(folder), str(document)]) == 2
    error = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line and "%|" not in line]
    assert len(error) == 1
    assert message in error[0]


def test_a_missing_document_is_refused_in_one_line(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
