"""Load a pooled classifier from a checkpoint, and show what it keeps of a document."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from shtopk.pooling import TopKPooling
from shtopk.selection import TopK
from shtopk.show import Slot, page

MODEL_TYPE = "topk_pooling"


def load_classifier(checkpoint: str | Path, *, trust_remote_code: bool = False):
    """(model in eval mode, tokenizer) of a checkpoint that `train.py` wrote. Reads safetensors alone.

    Args:
        checkpoint: a folder.
        trust_remote_code: allow the model code that lies in the checkpoint to run. Not needed where the class is
            registered already (`import models` in this project's repository).

    Raises:
        ValueError: no checkpoint, a damaged one, one of another model, or one whose code was not allowed to run.
    """
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a checkpoint with a config.json in {folder}, found none")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if config.model_type != MODEL_TYPE:
            raise ValueError(f"expected a model of type {MODEL_TYPE}, got {config.model_type}")
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, trust_remote_code=trust_remote_code, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (
        Exception
    ) as error:  # a damaged file can fail in any layer below; whatever it is, it is one line for the user
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "it carries its own model code; add --trust-remote-code if you trust where it comes from"
        raise ValueError(f"cannot load the checkpoint {folder}: {reason[:300]}") from error
    return model.eval(), tokenizer


@torch.inference_mode()
def show_document(model, tokenizer, text: str, *, label: str | None = None, title: str | None = None) -> str:
    """An HTML page with the document, the tokens kept and the prediction; see `shtopk.show.page`.

    Args:
        model: a classifier with a `TopKPooling` named `pooling`; it is put into eval mode.
        tokenizer: its fast tokenizer.
        text: the document, of any length, empty too.
        label: its true class, if known.
        title: headline; by default the start of the text.
    """
    model.eval()
    encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt", truncation=False, verbose=False)
    spans = [tuple(span) for span in encoded["offset_mapping"][0].tolist()]
    inputs = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    output = model(**inputs)
    probabilities = output.logits[0].float().softmax(-1).tolist()
    names = [model.config.id2label[i] for i in range(len(probabilities))]
    predicted = names[max(range(len(names)), key=probabilities.__getitem__)]
    pooling: TopKPooling = model.pooling
    slots = slots_of(output)
    facts = [
        f"{len(slots)} of {len(spans)} tokens kept",
        pooling.operator.replace("_", " "),
        f"temperature {pooling.temperature:g}",
        f"predicted {predicted}" + ("" if label is None else f", true class {label}"),
    ]
    first_line = text.strip().split("\n")[0]
    if len(first_line) > 70:
        first_line = first_line[:70].rsplit(" ", 1)[0] + " …"
    title = title or first_line or "An empty document"
    return page(text, spans, slots, list(zip(names, probabilities, strict=True)), title=title, facts=facts)


def slots_of(output) -> list[Slot]:
    """The filled slots of the first document of a model output, in order."""
    choice = TopK(
        output.pooled_hidden_states,
        output.pooled_hidden_states[..., 0],
        output.pooled_attention_mask.bool(),
        output.positions,
        output.weights,
        output.slots,
    )
    slots = []
    for slot in choice.mask[0].nonzero().flatten().tolist():
        if choice.slots is None:
            weights = choice.weights[0, slot]
        else:
            weights = choice.weights[0].where(choice.slots[0] == slot, 0)
        tokens = (weights > 1e-3).nonzero().flatten().tolist()
        slots.append(Slot(int(choice.positions[0, slot]), [(token, float(weights[token])) for token in tokens]))
    return slots
