"""Small things that several tests share: a tiny encoder with its tokenizer, in the hub's format."""

import json
import os
import random
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from tiny import BERT, tiny_tokenizer
from transformers import BertConfig, BertModel

from shtopk import backends


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """Folder of a random BERT of 2 layers with 64 positions, and its tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(**BERT), add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    """60 documents of two classes that one word tells apart, as a JSON lines file."""
    path = tmp_path_factory.mktemp("data") / "documents.jsonl"
    rows, noise = [], random.Random(0)
    for i in range(60):
        words = noise.choices(["a", "b", "c", ("goal", "bank")[i % 2]], k=40 + 2 * i)
        rows.append({"text": " ".join(words), "label": ("sport", "money")[i % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def words(encoder, documents, tmp_path):
    """A command line that trains for a few seconds."""
    return ["--train_file", str(documents), "--backbone", str(encoder), "--output_dir", str(tmp_path / "run"),
            "--k", "4", "--epochs", "12", "--batch_size", "8", "--learning_rate", "5e-3", "--backbone_dropout", "0",
            "--mixed_precision", "no"]  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run with these words, their output_dir apart: trained once, for whoever only looks or copies."""

    import train

    folders = {}

    def run(words):
        at = words.index("--output_dir")
        words = (*words[:at], *words[at + 2 :])
        if words not in folders:
            folder = tmp_path_factory.mktemp("trained")
            train.main([*words, "--output_dir", str(folder)])
            folders[words] = folder
        return folders[words]

    return run


@pytest.fixture
def trained_here(trained, tmp_path):
    """The same, copied to where the words say."""
    return lambda words: shutil.copytree(trained(words), tmp_path / "run")


@pytest.fixture(scope="session")
def summaries(tmp_path_factory):
    """60 documents whose summary is the one word that stands twice in them."""
    path = tmp_path_factory.mktemp("data") / "summaries.jsonl"
    rows, noise = [], random.Random(0)
    for i in range(60):
        letters = noise.sample("abcdefghijkl", 8)
        rows.append({"body": " ".join([*letters, ("goal", "bank")[i % 2]]), "gist": ("goal", "bank")[i % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def summary_words(words, summaries):
    return [*words, "--train_file", str(summaries), "--text_column", "body", "--summary_column", "gist",
            "--copy_head", "true", "--decoder_layers", "1", "--max_summary_tokens", "4"]  # fmt: skip


@pytest.fixture
def refusal(words, capsys):
    """Run train.py with something impossible; the one line it says."""

    import train  # the slowest import of all

    def run(*more, base=words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            train.main([*base, *map(str, more)])
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert "Traceback" not in error
        *before, message = [line for line in error.replace("\r", "\n").splitlines() if line]
        assert all("%|" in line for line in before), before  # nothing but progress bars
        assert message.startswith("train.py: ")
        return message

    return run


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(scope="module", params=list(backends.BACKENDS))
def backend(request):
    """Everything computed by each backend in turn; what it does not serve, by tensor operations."""
    chosen = {name: backends.BACKENDS[name] for name in (request.param, "tensors")}
    if not chosen[request.param].serves(torch.ones(1, 4, 2), torch.ones(1, 4)):
        pytest.skip(f"the backend {request.param} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "BACKENDS", chosen)
        yield request.param
