"""A tiny classifier that was never trained, documents for it, and its answers."""

import json
import random
from pathlib import Path

import torch
from tiny import BERT, tiny_tokenizer
from transformers import BertConfig

from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification


def save(model, folder):
    model.eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def documents(number, seed=0):
    draw = random.Random(seed)
    return [{"id": i, "url": f"u{i}", "text": " ".join(draw.choices("abcdefgh", k=draw.randint(0, 40)))}
            for i in range(number)]  # fmt: skip


def answers(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def classifier(folder: Path) -> Path:
    """Save one of two classes, each of which some documents get."""
    torch.manual_seed(0)
    config = TopKPoolingConfig(
        backbone=BertConfig(**BERT, initializer_range=0.3), k=4, id2label={0: "sport", 1: "law"}
    )
    model = TopKPoolingForSequenceClassification(config).eval()
    with torch.no_grad():  # so that there are documents of both classes
        encoded = tiny_tokenizer()([row["text"] for row in documents(50)], return_tensors="pt", padding=True)
        model.classifier.bias.copy_(-model(encoded.input_ids, encoded.attention_mask).logits.mean(0))
    return save(model, folder)
