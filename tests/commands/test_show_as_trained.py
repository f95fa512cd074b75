"""`shtopk show` reads a text as the model's training and `shtopk predict` do, and answers as `predict`."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from answering import answers, classifier, save
from pages import Text
from tiny import BART, LLAMA, SPECIAL, tiny_writer
from transformers import BartConfig, LlamaConfig, LlamaForCausalLM

from shtopk.commands import main
from shtopk.integrations.decoder import pool_decoder
from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingSeq2SeqConfig
from shtopk.models.language_model import set_completions

TEXT = "a b c d e f g"


def summarizer(folder):
    torch.manual_seed(0)
    config = TopKPoolingSeq2SeqConfig(backbone=BartConfig(**BART | {"init_std": 0.5}), k=4, **SPECIAL)
    model = TopKPoolingForConditionalGeneration(config)
    model.generation_config.update(max_new_tokens=5, suppress_tokens=[0, 1, 2, 3])
    return save(model, folder)


def language_model(folder):
    torch.manual_seed(0)
    model = pool_decoder(LlamaForCausalLM(LlamaConfig(**LLAMA | {"initializer_range": 0.5})), {1: 6})
    set_completions(model, max_new_tokens=4, min_new_tokens=4)
    model.eval().save_pretrained(folder)
    tiny_writer().save_pretrained(folder)
    return folder


KINDS = {"classifier": classifier, "summarizer": summarizer, "language model": language_model}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return {kind: make(tmp_path_factory.mktemp("checkpoints") / make.__name__) for kind, make in KINDS.items()}


@pytest.fixture
def of_training(tmp_path):
    """Save a classifier whose training had these settings; its folder."""

    def make(settings):
        folder = classifier(tmp_path / "trained")
        (folder / "arguments.yaml").write_text(settings)
        return folder

    return make


@pytest.fixture
def shown(shtopk, tmp_path):
    """Show a file: the answer in one line, and the page."""

    def show(folder, path, *words):
        page = tmp_path / "page.html"
        line = shtopk("show", folder, path, "--output", page, "--overwrite", *words)
        return line.removesuffix(f", see {page}\n"), page.read_text(encoding="utf-8")

    return show


@pytest.fixture
def predicted(shtopk, tmp_path):
    """The one answer of `shtopk predict` to a file, as the page has it."""

    def predict(folder, path):
        out = tmp_path / "out.jsonl"
        shtopk("predict", folder, path, "--output", out, "--overwrite")
        (line,) = answers(out)
        shares = f" ({100 * line['probability']:.1f} %)" if "probability" in line else ""
        return f"{line['prediction']}{shares}"

    return predict


@pytest.fixture
def refusal(capsys, tmp_path):
    """The one line by which `shtopk show` refuses."""

    def refuse(*words):
        capsys.readouterr()
        assert main(["show", *map(str, words), "--output", str(tmp_path / "none.html")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("shtopk show: ")
        return line

    return refuse


def test_a_page_never_takes_the_place_of_the_text_that_it_shows(checkpoints, write, capsys):
    path = Path(write("a.html", TEXT))
    for words in (["--output", path], ["--output", path.parent / "none" / "page.html"]):
        assert main(["show", *map(str, [checkpoints["classifier"], path, *words, "--overwrite"])]) == 2
    assert [line.split(": ")[-1] for line in capsys.readouterr().err.splitlines()] == [
        f"{path} is the text itself; name another page with --output", f"{path.parent / 'none'} is no folder"
    ]  # fmt: skip
    assert path.read_text() == TEXT


def test_a_text_is_cut_to_the_max_tokens_of_the_training(of_training, shown, predicted, write):
    folder, path = of_training("task: files\nmax_tokens: 4\n"), write("a.txt", TEXT)
    line, page = shown(folder, path)
    assert line == predicted(folder, path) and "the first 4 tokens read" in page
    (folder / "arguments.yaml").unlink()
    whole, page = shown(folder, path)
    assert whole == predicted(folder, path) != line and "9 tokens" in page


@pytest.mark.parametrize("around", [("\ufeff", ""), ("", "\n"), ("\ufeff", "\r\n"), ("", "\r")], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_order_mark_and_the_last_line_end_are_no_part_of_the_text(
    checkpoints, shown, predicted, write, kind, around
):
    start, end = around
    line, page = shown(checkpoints[kind], write("a.txt", f"{start}{TEXT}{end}".encode()))
    assert Text(page).document == TEXT
    assert line == predicted(checkpoints[kind], write("a.txt", f"{start}{TEXT}{end}".encode()))


@pytest.mark.parametrize("settings", ["task: files\ntext_pair_column: d\n", "task: pairs\n"])
def test_a_model_of_pairs_is_shown_two_texts_or_refuses(of_training, shown, refusal, write, settings):
    folder, path = of_training(settings), write("a.txt", TEXT)
    assert "--pair" in refusal(folder, path)
    assert Text(shown(folder, path, "--pair", write("b.txt", "\ufeffb a\n".encode()))[1]).document == f"{TEXT}\nb a"


def test_a_model_of_single_texts_refuses_a_pair_where_its_training_is_known(of_training, shown, refusal, write):
    folder, path = of_training("task: files\n"), write("a.txt", TEXT)
    assert "leave out --pair" in refusal(folder, path, "--pair", path)
    (folder / "arguments.yaml").unlink()
    shown(folder, path, "--pair", path)


def test_settings_that_no_training_wrote_are_refused(of_training, refusal, write):
    assert "arguments.yaml" in refusal(of_training("max_tokens: many\n"), write("a.txt", TEXT))


def test_the_module_is_the_command_by_another_name(of_training, write, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.html"
    words = [str(of_training("max_tokens: 4\n")), write("a.txt", TEXT), "--output", str(page)]
    monkeypatch.setattr(sys, "argv", ["show", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("shtopk.show", run_name="__main__")
    assert stop.value.code == 0, capsys.readouterr().err
    assert "the first 4 tokens read" in page.read_text(encoding="utf-8")
