"""What several pages need: the models of the hub that they name, as tiny ones in folders of these names."""

import functools
import shutil

import pytest
import torch
from tiny import BART, BERT, WORDS, tiny_tokenizer
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertModel

from shtopk.models import pretrained


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which a page is followed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub_in_a_folder(encoder, here, monkeypatch):
    """The pages name models of the hub. Here are folders of these names, which transformers takes first. Runs are
    written beside them. Compilers stop before machine code, which takes minutes (test_compile.py goes all the way)."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.manual_seed(0)
    for name in ("bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"):
        shutil.copytree(encoder, name)
    BartForConditionalGeneration(BartConfig(**BART, max_position_embeddings=600)).save_pretrained("facebook/bart-base")
    tiny_tokenizer().save_pretrained("facebook/bart-base")
    return here


@pytest.fixture
def deep_hub(hub_in_a_folder):
    """The same, with an encoder of more layers and positions."""
    shutil.rmtree("bert-base-uncased")
    sizes = BERT | {"num_hidden_layers": 5, "max_position_embeddings": 400}
    BertModel(BertConfig(**sizes)).save_pretrained("bert-base-uncased")
    tiny_tokenizer().save_pretrained("bert-base-uncased")
    return hub_in_a_folder


@pytest.fixture
def tiny_default(here, monkeypatch):
    """In place of MiniLM, which takes long to train on a CPU: a tiny encoder that knows a few words."""
    words = [*WORDS, "awful", "poor", "good", "great", "court", "refund", "order", "today", "people", "said", "that"]
    torch.manual_seed(0)
    BertModel(BertConfig(**BERT | {"vocab_size": len(words)})).save_pretrained("tiny-default")
    tiny_tokenizer(words).save_pretrained("tiny-default")
    monkeypatch.setattr(pretrained, "default_encoder", lambda: here / "tiny-default")
    monkeypatch.setattr(pretrained, "verify_sha256", lambda *_: None)
    return here
