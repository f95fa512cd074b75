"""The README.md that is saved beside a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

CLASSIFY = """from transformers import pipeline

classify = pipeline("text-classification", model="{folder}", trust_remote_code=True)
classify("Shares rose sharply after the bank raised its forecast.")"""

SUMMARIZE = """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}", trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}", trust_remote_code=True)
document = tokenizer("A text of any length.", return_tensors="pt", return_token_type_ids=False)
tokenizer.batch_decode(model.generate(**document), skip_special_tokens=True)"""

KINDS = {  # title, tag, what follows the pooling, code, metrics
    "label": ("Classifier", "text-classification", "a linear classifier over their mean", CLASSIFY,
              ("accuracy", "f1")),
    "summary": ("Summarizer", "summarization", "a decoder that sees these k alone", SUMMARIZE,
                ("rouge1", "rouge2", "rougeL", "rougeLsum")),
}  # fmt: skip


def write_model_card(
    folder: Path, *, target: str, base_model: str, data: str, licence: str, command: str, results: dict
) -> None:
    """Write folder/README.md: what the model is, its metrics and command, and how to use it.

    Args:
        target: what it answers with, "label" or "summary".
        base_model: the backbone that it was trained from.
        data, licence: of the corpus, a sentence each.
        command: that made it.
        results: as in all_results.json.
    """
    title, tag, rest, code, metrics = KINDS[target]
    rows = "\n".join(f"| {name} | {results[f'test_{name}']:.4f} |" for name in metrics)
    here = Path(base_model).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base_model)  # no name of the hub
    of_data = {"dataset_type": results["arguments"]["task"], "dataset_name": data, "dataset_split": "test"}
    metadata = ModelCardData(
        model_name=folder.resolve().name,
        library_name="transformers",
        pipeline_tag=tag,
        tags=["shtopk", "token-pooling"],
        base_model=None if here else base_model,
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

The encoder of {Path(base_model).name if here else base_model}, whose token vectors are pooled to k by
`{results["arguments"]["operator"]}` top-k (k = {results["arguments"]["k"]}), and {rest}. Needs
`pip install shtopk transformers`; the model's code is in this folder, hence `trust_remote_code`.

```python
{code.format(folder=folder.as_posix())}
```

From the hub, write the model's name there instead of `{folder.as_posix()}`.

Trained and tested on: {data}.

| metric (test split, {results["test_documents"]} documents) | value |
|---|---|
{rows}

Command: `{command}`

## Licences

Code of the model: MIT. Base model: its own, see there. Data: {licence}.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
