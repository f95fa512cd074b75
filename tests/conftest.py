"""What tests of several rooms share: a tiny encoder, documents, command lines, runs and their refusals."""

import json
import os
import random
import re
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
CACHE = f"shtopk-tests-{getattr(os, 'getuid', int)()}"  # of prepared data, for all workers
os.environ.setdefault("HF_DATASETS_CACHE", str(Path(tempfile.gettempdir()) / CACHE))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background; what tests start is to stop
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from imported import missing

from shtopk import backends


def pytest_ignore_collect(collection_path):
    """Where transformers is not installed, the tests of what needs torch alone are left (`make versions`)."""
    if collection_path.suffix == ".py" and find_spec("transformers") is None and missing(collection_path):
        return True
    return None


def pytest_collection_modifyitems(items):
    """What takes long begins first, in both of the halves that two workers start with; the longest before all else."""
    slow = sorted(
        (item for item in items if item.get_closest_marker("slow")), key=lambda item: "interp" not in item.name
    )
    fast = [item for item in items if not item.get_closest_marker("slow")]
    half = len(fast) // 2
    items[:] = slow[::2] + fast[:half] + slow[1::2] + fast[half:]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """Folder of a random BERT of 2 layers with 64 positions, and its tokenizer."""
    from tiny import BERT, tiny_tokenizer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(**BERT), add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_rows(make, path):
    """A file of JSON lines: 60 rows, made of a generator, the row's number and one of two words."""
    noise = random.Random(0)
    path.write_text("".join(json.dumps(make(noise, i, ("goal", "bank")[i % 2])) + "\n" for i in range(60)))
    return path


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    """60 documents of two classes that one word tells apart."""

    def row(noise, i, word):
        words = noise.choices(["a", "b", "c", word], k=40 + 2 * i)
        return {"text": " ".join(words), "label": ("sport", "money")[i % 2]}

    return write_rows(row, tmp_path_factory.mktemp("data") / "documents.jsonl")


@pytest.fixture(scope="session")
def summaries(tmp_path_factory):
    """60 documents whose summary is the one word of them that is no letter."""

    def row(noise, i, word):
        return {"body": " ".join([*noise.sample("abcdefghijkl", 8), word]), "gist": word}

    return write_rows(row, tmp_path_factory.mktemp("data") / "summaries.jsonl")


@pytest.fixture
def words(encoder, documents, tmp_path):
    """A command line that trains for a few seconds."""
    return ["--train_file", str(documents), "--backbone", str(encoder), "--output_dir", str(tmp_path / "run"),
            "--k", "4", "--epochs", "12", "--batch_size", "8", "--learning_rate", "5e-3", "--backbone_dropout", "0",
            "--mixed_precision", "no"]  # fmt: skip


@pytest.fixture
def summary_words(words, summaries):
    return [*words, "--train_file", str(summaries), "--text_column", "body", "--summary_column", "gist",
            "--copy_head", "true", "--decoder_layers", "1", "--max_summary_tokens", "4"]  # fmt: skip


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """Folder of a random Llama of 2 layers with 64 positions, and its tokenizer."""
    from tiny import LLAMA, tiny_writer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language_model")
    LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(folder)
    tiny_writer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    """160 prompts of 30 letters and, among them, one of two words, which decides what follows."""
    noise, path = random.Random(0), tmp_path_factory.mktemp("data") / "prompts.jsonl"
    with path.open("w") as file:
        for i in range(160):
            words = [*noise.choices("abcdef", k=30), ("goal", "bank")[i % 2]]
            noise.shuffle(words)
            file.write(json.dumps({"prompt": " ".join(words), "completion": (" match", " shares")[i % 2]}) + "\n")
    return path


@pytest.fixture
def prompt_words(words, prompts, language_model):
    """A command line that trains a language model for a few seconds, from nothing."""
    at = words.index("--k")
    return [*words[:at], *words[at + 2 :], "--train_file", str(prompts), "--backbone", str(language_model),
            "--k_by_layer", "1:4", "--epochs", "10", "--learning_rate", "5e-3", "--max_completion_tokens", "3"
            ]  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run with these words, their output_dir apart: trained once, for whoever only looks or copies."""

    import train  # the slowest import of all

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


@pytest.fixture
def last_line(capsys):
    """Run something; if that exits, with this code: its last line, before which a refusal shows only progress bars."""

    def run(function, *arguments, code=2):
        capsys.readouterr()
        try:
            function(*arguments)
        except SystemExit as caught:
            stop = caught
        else:
            return None
        *before, message = [line for line in re.split("[\r\n]", capsys.readouterr().err) if line]
        assert stop.code == code
        assert code != 2 or all("%|" in line for line in before), before
        assert message.startswith("train.py: ") and message.isprintable() and len(message) < 1100, message
        return message

    return run


@pytest.fixture
def refusal(words, last_line):
    """Run train.py with something impossible; the one line it says."""

    import train

    return lambda *more, base=words: last_line(train.main, [*base, *map(str, more)])


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(scope="module", params=[name for name in backends.BACKENDS if name != "gpu"])
def backend(request):
    """Everything computed by each backend of CPUs in turn; what it does not serve, by tensor operations."""
    chosen = {name: backends.BACKENDS[name] for name in (request.param, "tensors")}
    if not chosen[request.param].serves(torch.ones(1, 4, 2), torch.ones(1, 4)):
        pytest.skip(f"the backend {request.param} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "BACKENDS", chosen)
        yield request.param
