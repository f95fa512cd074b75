"""A model uploaded and downloaded again: the checkpoint, its code, its card. Without a network."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from seq2seq_families import build, documents
from tiny import tiny_tokenizer
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from shtopk.models import TopKPoolingForSequenceClassification, write_model_card

ROOT = Path(__file__).resolve().parents[2]
RESULTS = {
    "arguments": {"operator": "successive_halving", "k": "4", "task": "files"},
    "test_documents": 12,
    **{f"test_{name}": 0.5 for name in ("accuracy", "f1", "rouge1", "rouge2", "rougeL", "rougeLsum")},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub as a folder, owner/name/files, which uploads are written to and downloads read from."""
    root = tmp_path / "hub"

    def create_repo(api, repo_id, **options):
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(api, repo_id, operations, **options):
        for operation in operations:
            path = root / repo_id / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(operation.path_or_fileobj, path)
        return SimpleNamespace(commit_url="", oid="0" * 40)

    def download(repo_id, filename, **options):
        if not (root / repo_id / filename).is_file():
            raise EntryNotFoundError(filename)
        return root / repo_id / filename

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.repocard.hf_hub_download", download)
    return root


@pytest.fixture
def models(encoder):
    torch.manual_seed(0)
    return {
        "label": TopKPoolingForSequenceClassification.from_backbone(encoder, k=4, num_labels=3).eval(),
        "summary": build("bart", copy_head=True, window=32),
    }


def card_of(folder: Path, target: str, base_model: str = "google-bert/bert-base-uncased") -> str:
    write_model_card(
        folder,
        target=target,
        base_model=base_model,
        data="Documents: from a file",
        licence="As the source says",
        command="python train.py --train_file documents.jsonl",
        results=RESULTS,
    )
    return (folder / "README.md").read_text(encoding="utf-8")


def example(card: str) -> tuple[str, str]:
    """(the statements of a card's usage example, the expression that it ends with)"""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    *statements, last = ast.parse(code).body
    return "\n".join(map(ast.unparse, statements)), ast.unparse(last)


def test_what_is_pushed_loads_and_is_the_same(models, hub, monkeypatch):
    for target, model in models.items():
        assert model.push_to_hub(f"someone/{target}")
        tiny_tokenizer().push_to_hub(f"someone/{target}")
        names = set(os.listdir(hub / "someone" / target))
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "windows.py"} <= names
    assert "modeling_topk_pooling.py" in os.listdir(hub / "someone" / "label")

    monkeypatch.chdir(hub)  # so that the name on the hub is the folder's
    again = AutoModelForSequenceClassification.from_pretrained("someone/label").eval()
    batch = documents(30, 100)
    assert torch.equal(again(**batch).logits, models["label"](**batch).logits)
    assert len(pipeline("text-classification", model="someone/label")(["goal match a b", "bank shares " * 100])) == 2
    kept = AutoModel.from_pretrained("someone/label").eval()(**batch)
    assert torch.equal(kept.last_hidden_state, models["label"](**batch).pooled_hidden_states)
    assert torch.equal(kept.attention_mask, models["label"](**batch).pooled_attention_mask)
    again = AutoModelForSeq2SeqLM.from_pretrained("someone/summary").eval()
    options = {"max_new_tokens": 6, "min_new_tokens": 6}
    assert torch.equal(again.generate(**batch, **options), models["summary"].generate(**batch, **options))


def test_a_card_that_lies_on_the_hub_survives_a_push(models, hub):
    (hub / "someone" / "label").mkdir(parents=True)
    card = card_of(hub / "someone" / "label", "label")
    models["label"].push_to_hub("someone/label")
    pushed = (hub / "someone" / "label" / "README.md").read_text(encoding="utf-8")
    assert pushed.split("---")[2].strip() == card.split("---")[2].strip()


def test_the_examples_of_the_cards_run_where_only_shtopk_is_installed_and_answer_the_same(models, tmp_path):
    """In an empty folder, with a copy of shtopk and shtopk.models on the path and nothing else of this repository."""
    library, empty = tmp_path / "library", tmp_path / "empty"
    for source, package in (("shtopk", "shtopk"), ("models", "shtopk/models")):
        shutil.copytree(ROOT / source, library / package, ignore=shutil.ignore_patterns("__pycache__"))
    empty.mkdir()
    examples, expected = {}, {}
    for target, model in models.items():
        folder = tmp_path / target
        if target == "summary":
            model.set_generation(max_new_tokens=6, min_new_tokens=6)
            model.generation_config.suppress_tokens = [0, 1, 2, 3]  # all but words
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        examples[target] = example(card_of(folder, target))
    classify = pipeline("text-classification", model=models["label"], tokenizer=tiny_tokenizer(), device="cpu")
    expected["label"] = classify("Shares rose sharply after the bank raised its forecast.")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "summary")
    document = tokenizer("A text of any length.", return_tensors="pt", return_token_type_ids=False)
    expected["summary"] = tokenizer.batch_decode(models["summary"].generate(**document), skip_special_tokens=True)

    document = tokenizer("goal match " * 40, return_tensors="pt")
    with torch.no_grad():
        expected["vectors"] = models["label"](**document).pooled_hidden_states.tolist()
    expected["remote label"] = classify("goal match " * 40)
    remote_code = "from transformers import pipeline\n" + "".join(
        f"{name} = pipeline({task!r}, {(tmp_path / 'label').as_posix()!r}, trust_remote_code=True)\n"
        for name, task in (("extract", "feature-extraction"), ("classify", "text-classification"))
    )
    remote = {"vectors": (remote_code, "extract('goal match ' * 40)"),
              "remote label": (remote_code, "classify('goal match ' * 40)")}  # fmt: skip
    examples = remote | examples  # first, before anything imports shtopk.models

    code = f"""
import json, sys
sys.path = [path for path in sys.path if path not in ("", {str(ROOT)!r})]  # as an editable installation adds it
answers = {{}}
for target, (statements, last) in {examples!r}.items():
    names = {{}}
    exec(statements, names)
    answers[target] = eval(last, names)
    assert ("shtopk.models" in sys.modules) == (target not in {[*remote]})
import shtopk.models
assert shtopk.models.__file__.startswith({str(library)!r})
print(json.dumps(answers))
"""
    environment = os.environ | {"PYTHONPATH": str(library), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=empty, env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)  # no prompt asks whether the code may run  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    for target in ("label", "remote label"):
        (answer,), (wanted,) = answers[target], expected[target]
        assert answer["label"] == wanted["label"]
        assert answer["score"] == pytest.approx(wanted["score"], abs=1e-6)
    assert answers["summary"] == expected["summary"]
    assert len(expected["summary"][0].split()) == 6
    vectors, wanted = torch.tensor(answers["vectors"]), torch.tensor(expected["vectors"])
    torch.testing.assert_close(vectors, wanted)


@pytest.mark.parametrize(("target", "metrics"), [("label", ["accuracy", "f1"]), ("summary", ["rouge1", "rougeLsum"])])
def test_a_card_tells_metrics_base_model_licence_and_command(target, metrics, tmp_path):
    card = card_of(tmp_path, target)
    for metric in metrics:
        assert f"| {metric} | 0.5000 |" in card
    for text in ("google-bert/bert-base-uncased", "As the source says", "Documents: from a file",
                 "python train.py --train_file documents.jsonl", "12 documents", "k = 4"):  # fmt: skip
        assert text in card
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data  # what the hub reads
    assert data.library_name == "transformers" and "shtopk" in data.tags
    assert data.pipeline_tag == {"label": "text-classification", "summary": "summarization"}[target]
    assert data.base_model == "google-bert/bert-base-uncased"
    assert data.license == "other" and data.license_link == "#licences" and "## Licences" in card
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert [values[metric] for metric in metrics] == [0.5, 0.5]


def test_a_card_names_no_folder_as_its_base_model(encoder, tmp_path):
    card = card_of(tmp_path, "label", base_model=str(encoder))
    assert str(encoder) not in card
    assert f"The encoder of {encoder.name}" in card
    assert huggingface_hub.ModelCard.load(tmp_path / "README.md").data.base_model is None
