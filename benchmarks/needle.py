"""Needle: which pooling finds the two sentences that matter? Frozen encoder, token vectors computed once.

Used by compare.py. The head is that of the classification model: pooled vectors, their mean, dropout, a linear layer.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer
from variants import Variant

from models import encode_in_windows
from shtopk import TopKPooling, anneal
from train import best_precision

BATCH = 32  # documents per update
EPOCHS = 8
LEARNING_RATE = 1e-2  # of the classifier
WINDOW = 256


class Split(NamedTuple):
    """A split as token vectors."""

    hidden_states: Tensor  # [N, n, d] float32 in memory, float16 in the cache
    mask: Tensor  # [N, n] bool
    evidence: Tensor  # [N, n] bool, tokens of the hidden sentences
    labels: Tensor  # [N]


class AttentionPooling(nn.Module):
    """The rival that chooses nothing: k learned queries, each a softmax over all n tokens."""

    def __init__(self, hidden_size: int, k: int):
        super().__init__()
        self.queries = nn.Linear(hidden_size, k, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor):
        logits = self.queries(hidden_states).masked_fill(~mask.unsqueeze(-1), -torch.inf)  # [B, n, k]
        weights = logits.softmax(1).transpose(1, 2)
        return weights @ hidden_states, mask.new_ones(weights.shape[:2]), weights.argmax(-1)


class Classifier(nn.Module):
    """k pooled vectors -> logits, and the positions they came from."""

    def __init__(self, hidden_size: int, classes: int, k: int | float, variant: Variant):
        super().__init__()
        self.kind = variant.kind
        if variant.kind == "attention":
            self.pooling = AttentionPooling(hidden_size, k)
        else:
            self.pooling = TopKPooling(hidden_size, k, **variant.pooling)
        self.pooling.requires_grad_(not variant.freeze_scorer)
        self.dropout, self.output = nn.Dropout(0.1), nn.Linear(hidden_size, classes)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, kept, positions = self.pooling(hidden_states, mask)[:3]
        kept = kept.unsqueeze(-1).to(vectors.dtype)
        document = (vectors * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.output(self.dropout(document)), positions, kept.squeeze(-1).bool()


def token_vectors(dataset, encoder: str, device: torch.device, cache: Path) -> dict[str, Split]:
    """Encode every split once, or read what an earlier run left in the cache."""
    splits = {}
    for name, split in dataset.items():
        fingerprint = hashlib.sha256("\0".join([*list(split["text"]), str(WINDOW)]).encode()).hexdigest()[:16]
        path = cache / f"needle-{name}-{fingerprint}.safetensors"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            save_file(_encode(split, encoder, device, name), path)
        tensors = load_file(path)
        tensors["hidden_states"] = tensors["hidden_states"].float()
        splits[name] = Split(**{field: tensors[field].to(device) for field in Split._fields})
    return splits


def _encode(split, encoder: str, device: torch.device, name: str) -> dict[str, Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).to(device).eval()
    batches = []
    longest = max(len(ids) for ids in tokenizer(list(split["text"]), verbose=False)["input_ids"])
    for start in tqdm(range(0, len(split), 8), desc=f"encode ({name})"):
        rows = split[start : start + 8]
        tokens = tokenizer(
            rows["text"], padding="max_length", max_length=longest, return_offsets_mapping=True, return_tensors="pt",
            verbose=False,
        )  # fmt: skip
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=best_precision() == "bf16"):
            hidden_states = encode_in_windows(model, ids, mask, window=WINDOW, windows_at_once=64)
        first, last = tokens["offset_mapping"].unbind(-1)  # characters
        begin, end = (torch.tensor(rows[f"evidence_{edge}"]).unsqueeze(-1) for edge in ("start", "end"))
        evidence = (first < end) & (last > begin) & (last > first)
        batches.append((hidden_states.half().cpu(), mask.bool().cpu(), evidence, torch.tensor(rows["label"])))
    return {field: torch.cat(parts) for field, parts in zip(Split._fields, zip(*batches, strict=True), strict=True)}


def fit(classifier: Classifier, train: Split, seed: int, scorer_learning_rate: float, epochs: int = EPOCHS) -> None:
    """Train with the same budget for every variant."""
    torch.manual_seed(seed)
    scorer = list(classifier.pooling.parameters())
    head = list(classifier.output.parameters())
    rates = [scorer_learning_rate, LEARNING_RATE]
    optimizer = torch.optim.AdamW(
        [{"params": scorer, "weight_decay": 0.0}, {"params": head, "weight_decay": 0.01}], lr=LEARNING_RATE
    )
    updates = epochs * -(-len(train.labels) // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rates, total_steps=updates, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    classifier.train()
    update = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train.labels), device=train.labels.device).split(BATCH):
            if isinstance(classifier.pooling, TopKPooling):
                anneal(classifier, update / (updates - 1))
            mask = train.evidence if classifier.kind == "oracle" else train.mask
            logits, *_ = classifier(train.hidden_states[rows], mask[rows])
            loss = nn.functional.cross_entropy(logits, train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            for parameters in filter(None, (scorer, head)):
                nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            update += 1


@torch.inference_mode()
def predict(classifier: Classifier, split: Split) -> tuple[Tensor, float]:
    """Predicted labels [N], and the share of the kept tokens that are evidence."""
    classifier.eval()
    predictions, hits, kept_tokens = [], 0, 0
    for rows in torch.arange(len(split.labels), device=split.labels.device).split(BATCH):
        mask = split.evidence if classifier.kind == "oracle" else split.mask
        logits, positions, kept = classifier(split.hidden_states[rows], mask[rows])
        predictions.append(logits.argmax(-1))
        hits += int(split.evidence[rows].gather(1, positions)[kept].sum())
        kept_tokens += int(kept.sum())
    return torch.cat(predictions), hits / max(1, kept_tokens)
