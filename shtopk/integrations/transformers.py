"""Load a pooled classifier from a checkpoint, and show what it keeps of a document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from shtopk.pooling import PooledTokens, TopKPooling
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
        ValueError: no checkpoint, a damaged or incomplete one, one of another model, or one whose code was not
            allowed to run.
    """
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a checkpoint with a config.json in {folder}, found none")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            if config.model_type != MODEL_TYPE:
                raise ValueError(f"expected a model of type {MODEL_TYPE}, got {config.model_type}")
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if report["missing_keys"]:
            raise ValueError(f"its weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
        words, vectors = len(tokenizer), model.get_input_embeddings().weight.shape[0]
        if not tokenizer.is_fast or words > vectors:
            raise ValueError(f"expected a fast tokenizer of at most {vectors} words, got one of {words}")
    except Exception as error:  # a damaged file can fail in any layer below
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "it carries its own model code; add --trust-remote-code if you trust where it comes from"
        elif "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than its config.json says"
        raise ValueError(f"cannot load the checkpoint {folder}: {reason[:300]}") from error
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers; what matters in them is said as an error."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def show_document(model, tokenizer, text: str, *, label: str | None = None, title: str | None = None) -> str:
    """An HTML page with the document, the tokens kept and the prediction; see `shtopk.show.page`.

    Args:
        model: a classifier with a `TopKPooling` named `pooling`; it is put into eval mode.
        tokenizer: its fast tokenizer.
        text: the document, of any length, empty too.
        label: its true class, if known.
        title: headline; by default the first line of the text.
    """
    first_line = text.strip().split("\n")[0]
    if len(first_line) > 70:
        first_line = first_line[:70].rsplit(" ", 1)[0] + " …"
    return page(**describe(model, tokenizer, text), label=label, title=title or first_line or "An empty document")


@torch.inference_mode()
def describe(model, tokenizer, text: str) -> dict[str, Any]:
    """What `shtopk.show.page` shows of a document, by its argument names; the title and the label are the caller's."""
    model.eval()
    encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt", truncation=False, verbose=False)
    spans = [tuple(span) for span in encoded["offset_mapping"][0].tolist()]
    inputs = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    pooling: TopKPooling = model.pooling
    pooled: list[PooledTokens] = []
    watch = pooling.register_forward_hook(lambda module, given, output: pooled.append(output))
    try:
        probabilities = model(**inputs).logits[0].float().softmax(-1).tolist()
    finally:
        watch.remove()
    slots = slots_of(pooled[0].choice)
    return {
        "text": text,
        "spans": spans,
        "slots": slots,
        "probabilities": [(model.config.id2label[i], probability) for i, probability in enumerate(probabilities)],
        "facts": [
            f"{len(slots)} of {len(spans):,} tokens kept",
            pooling.operator.replace("_", " "),
            f"temperature {pooling.temperature:g}",
        ],
    }


def slots_of(choice: TopK, smallest_weight: float = 1e-3) -> list[Slot]:
    """The filled slots of the first document of a choice, in order, with their tokens of some weight."""
    weights = choice.weights[0]  # [n], or [k, n] where a token may flow into every slot
    tokens: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for place in (weights > smallest_weight).nonzero().tolist():
        token = place[-1]
        slot = place[0] if choice.slots is None else int(choice.slots[0, token])
        tokens[slot].append((token, float(weights[tuple(place)])))
    return [
        Slot(int(choice.positions[0, slot]), tokens[slot], float(choice.scores[0, slot]))
        for slot in choice.mask[0].nonzero().flatten().tolist()
    ]
