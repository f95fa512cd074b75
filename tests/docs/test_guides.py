"""The pages on training and what follows it: their commands print what stands there, their code does what they say."""

import re

import pytest
import torch
from code_blocks import DOCS, page
from datasets import Dataset
from refusals import FIELDS, GROUPS
from tiny import LLAMA, tiny_writer
from transcripts import transcript
from transformers import AutoTokenizer, HfArgumentParser, LlamaConfig, LlamaForCausalLM

from shtopk.commands.predict import PredictArguments
from shtopk.commands.sweep import SweepArguments
from shtopk.models import load_checkpoint
from shtopk.training.aliases import ALIASES
from shtopk.training.arguments import EvaluationArguments

GUIDES = ("train", "data", "answers", "evaluate", "summarize", "inside_the_encoder", "many_processes", "completions")
ELSEWHERE = {  # options of accelerate, torchrun and hf, of compare and show, and of every command
    *("--config_file", "--num_processes", "--machine_rank", "--main_process_ip", "--nproc_per_node"),
    *("--operators", "--seeds", "--output", "--pair", "--config", "--help", "--backbone"),
    *("--num_train_epochs", "--epoch", "--local"),  # --local-dir
}


def rows_of_tables(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


@pytest.mark.slow
def test_what_is_trained_is_evaluated_swept_and_answers(here):
    transcript(page("train"), here)
    assert (here / "runs" / "mine" / "history.jsonl").is_file()
    names = transcript(page("evaluate"), here)
    assert names["answer"].label == "sport"


@pytest.mark.slow
def test_labels_numbers_and_rare_classes_are_asked_for_as_the_page_says(tiny_default):
    names = transcript(page("answers"), tiny_default)
    assert set(names["answer"].labels) <= set(names["answer"].probabilities) == {"law", "money", "sport"}
    assert names["rating"].value == pytest.approx(3, abs=2)


def test_bad_files_are_refused_as_the_page_says(here):
    transcript(page("data"), here)


def test_a_summarizer_trains_and_generates(deep_hub):
    names = transcript(page("summarize"), deep_hub, text="a b goal " * 300, summary="goal")
    names["loss"].backward()
    assert (names["model"].pooling.scorer.weight.grad != 0).any()
    assert len(names["said"]) == 1
    assert names["joined"].config.window_k == 32


def test_an_encoder_pools_between_its_layers(deep_hub, capsys):
    tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
    batch = {"input_ids": torch.randint(4, 30, (2, 300))}
    rows = [dict(tokenizer("goal a b c " * 20), labels=0), dict(tokenizer("bank d e f " * 20), labels=1)] * 4
    names = transcript(page("inside_the_encoder"), deep_hub, batch=batch, rows=rows, tokenizer=tokenizer)
    assert names["out"].assignment.positions.shape == (2, 64)
    assert "(4): TopKPooling(" in capsys.readouterr().out
    (layer,) = names["model"].bert.encoder.pooling.values()
    assert layer.options.temperature == 1 and layer.options.initial_temperature is None and layer.k == 0.25
    assert names["trainer"].state.log_history[-1]["epoch"] == 1
    model, _ = load_checkpoint("runs/pooled")  # as the commands do
    assert list(model.bert.encoder.pooling) == ["2"]


def test_trl_trains_a_model_that_completes_prompts(here):
    pytest.importorskip("trl")
    name = "HuggingFaceTB/SmolLM2-135M"
    LlamaForCausalLM(LlamaConfig(**LLAMA | {"num_hidden_layers": 9})).save_pretrained(here / name)
    tiny_writer().save_pretrained(here / name)
    names = transcript(page("completions"), here, rows=[{"prompt": "a b c d", "completion": " goal"}] * 8)
    assert names["trainer"].state.global_step == 2


def test_an_index_keeps_8_vectors_of_a_document(hub_in_a_folder):
    documents = ["a b c goal match " * 4, "d e f bank shares " * 4]
    pairs = Dataset.from_dict({"query": ["goal", "bank"] * 4, "document": documents * 4})
    given = {"documents": documents, "queries": ["goal", "bank"], "pairs": pairs}
    names = transcript(page("smaller_index"), hub_in_a_folder, **given)
    assert [len(vectors) for vectors in names["index"]] == [8, 8]
    assert names["scores"].shape == (2, 2)
    for kept in ("same", "few"):
        for found, expected in zip(names[kept], names["index"], strict=True):
            torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_every_name_of_transformers_is_in_the_table():
    table = page("train").read_text(encoding="utf-8").split("| ours | theirs |")[1].split("\n\n")[0]
    names = [[re.findall(r"`(\w+)`", cell) for cell in row] for row in rows_of_tables(table)]
    found = {theirs: ours for (ours,), others in names for theirs in others}
    assert found == ALIASES


@pytest.mark.parametrize("name", ["train", "data", "answers", "completions"])
def test_fields_have_the_defaults_of_the_tables(name):
    text = page(name).read_text(encoding="utf-8")
    fields = [row for row in rows_of_tables(text) if len(row) == 3 and row[0].strip("`") in FIELDS]
    assert len(fields) >= 6
    for field, default, _ in fields:
        given = FIELDS[field.strip("`")]
        expected = "" if given is None else f"{given:g}" if isinstance(given, float) else str(given)
        written = default.strip("`")
        same = written == expected or (given is not None and written and float(written) == float(given))
        assert same, f"{field}: the page says {default}, the code {given}"


@pytest.mark.parametrize("name", GUIDES)
def test_options_and_configurations_are_there(name):
    text = page(name).read_text(encoding="utf-8")
    groups = (*GROUPS, EvaluationArguments, PredictArguments)
    ours = {
        option for group in groups for action in HfArgumentParser(group)._actions for option in action.option_strings
    }
    ours |= {f"--{field}" for field in SweepArguments.__dataclass_fields__}
    # Captions of generated tables name the options of benchmarks.
    text = re.sub(r"<!-- table.*?<!-- end -->", "", text, flags=re.DOTALL)
    assert set(re.findall(r"--[a-z_]+", text)) - ELSEWHERE <= ours | {"--task"}
    for path in re.findall(r"configs/[\w/-]+\.yaml", text):
        assert (DOCS.parent / path).is_file(), path


def test_the_page_on_long_trainings_names_what_matters_there():
    options = re.findall(r"--[a-z_]+", page("many_processes").read_text(encoding="utf-8"))
    assert {"--resume", "--save_every", "--total_limit", "--profile", "--tracker"} <= set(options)
