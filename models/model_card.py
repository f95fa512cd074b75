"""The model card: the README.md that is saved beside a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

CLASSIFY = """import shtopk.models  # registers the classes of the model
from transformers import pipeline

classify = pipeline("text-classification", model="{folder}")
classify("Shares rose sharply after the bank raised its forecast.")"""

LABEL = """import shtopk.models  # registers the classes of the model
from transformers import pipeline

label = pipeline("text-classification", model="{folder}", top_k=None)  # every label with its probability
label("Shares rose sharply after the bank raised its forecast.")"""

MEASURE = """import shtopk.models  # registers the classes of the model
from transformers import pipeline

measure = pipeline("text-classification", model="{folder}")
measure("Shares rose sharply after the bank raised its forecast.")[0]["score"]  # the number"""

SUMMARIZE = """import shtopk.models  # registers the classes of the model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
document = tokenizer("A text of any length.", return_tensors="pt")
tokenizer.batch_decode(model.generate(**document), skip_special_tokens=True)"""

COMPLETE = """from transformers import AutoModelForCausalLM, AutoTokenizer
from shtopk.integrations.decoder import load_pooled

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = load_pooled(AutoModelForCausalLM, "{folder}")
prompt = tokenizer("A long text, and a question at its end.", return_tensors="pt")
completion = model.generate(**prompt)[:, prompt["input_ids"].shape[1] :]
tokenizer.batch_decode(completion, skip_special_tokens=True)"""

KINDS = {  # title, tag, head, code, metrics
    "label": ("Classifier", "text-classification", "a linear classifier over their mean", CLASSIFY,
              ("accuracy", "f1")),
    "labels": ("Multi-label classifier", "text-classification", "a linear classifier over their mean, with a "
               "probability for each label", LABEL, ("f1_micro", "f1", "accuracy")),
    "value": ("Regression", "text-classification", "a linear layer over their mean, which gives a number", MEASURE,
              ("mse", "mae", "pearson", "spearman")),
    "summary": ("Summarizer", "summarization", "a decoder that sees these k alone", SUMMARIZE,
                ("rouge1", "rouge2", "rougeL", "rougeLsum")),
    "completion": ("Language model", "text-generation", "", COMPLETE, ("perplexity", "exact_match", "rougeL")),
}  # fmt: skip


def write_model_card(
    folder: Path, *, target: str, base_model: str, data: str, licence: str, command: str, results: dict
) -> None:
    """Write folder/README.md: what the model is, how good it is, how it was trained, and how to use it.

    Args:
        folder: of the checkpoint.
        target: what the model predicts: "label" (a class), "labels" (any number of them), "value" (a number),
            "summary" or "completion".
        base_model: the pretrained backbone, a name on the hub or a folder.
        data: a sentence on the corpus.
        licence: a sentence on what its texts may be used for.
        command: the command line that trained the model.
        results: the content of all_results.json.
    """
    title, tag, head, code, metrics = KINDS[target]
    others = results.get("baselines", {})
    columns = ["metric", "this model", *(name.replace("_", " ") for name in others)]
    figures = [{name: results[f"test_{name}"] for name in metrics}, *others.values()]
    cells = [[name, *(f"{one[name]:.4f}" if name in one else "" for one in figures)] for name in metrics]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *cells])
    beside = " Beside it stand figures that need no model." if others else ""
    local = is_local(base_model)
    of_data = {"dataset_type": results["arguments"]["task"], "dataset_name": data, "dataset_split": "test"}
    metadata = ModelCardData(
        model_name=folder.resolve().name,
        library_name="transformers",
        pipeline_tag=tag,
        tags=["shtopk", "token-pooling"],
        base_model=None if local else base_model,
        license="other",  # three parts, three licences
        license_name="see-licences",
        license_link="#licences",
        eval_results=[
            EvalResult(task_type=tag, metric_type=name, metric_value=round(results[f"test_{name}"], 4), **of_data)
            for name in metrics
        ],
    )
    card = f"""---
{metadata.to_yaml()}
---
# {title} with trainable token pooling

{_what(target, Path(base_model).name if local else base_model, head, results["arguments"])}

```python
{code.format(folder=folder.as_posix())}
```
{_on_thresholds(results)}
{elsewhere(folder.as_posix())}

Trained and tested on: {data}.

Test split, {results["test_documents"]} documents.{beside}

{rows}

Command: `{command}`

## Licences

Code of the model: MIT. Base model: its own, see there. Data: {licence}.
"""
    ModelCard(card).save(folder / "README.md")


def is_local(name: str) -> bool:
    """Whether a name is that of a folder, and of nothing on the hub."""
    return Path(name).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)


def elsewhere(folder: str) -> str:
    """The card's sentence on where else the model may lie."""
    return f"From the hub, write the model's name there instead of `{folder}`."


def _what(target: str, backbone: str, head: str, arguments: Mapping[str, Any]) -> str:
    if target == "completion":
        return f"""{backbone}, whose prompts are pooled between its layers by `{arguments["operator"]}` top-k
(layer:k = {arguments["k_by_layer"]}). From there on the layers see these vectors of a prompt, and what follows it.
Needs `pip install shtopk transformers`."""
    return f"""The encoder of {backbone}, whose token vectors are pooled to k by
`{arguments["operator"]}` top-k (k = {arguments["k"]}), and {head}. Needs
`pip install shtopk transformers`. Without `import shtopk.models`, pass `trust_remote_code=True`, which runs
the copy of the model's code in this folder."""


def _on_thresholds(results: dict) -> str:
    if not results.get("label_thresholds"):
        return ""
    return """
Each label has a threshold of its own, chosen on the validation split: `label_thresholds` in `config.json`, in the
order of the labels. `shtopk predict` and `shtopk.models.predict` answer with the labels that reach theirs; a pipeline
leaves that to you.
"""
