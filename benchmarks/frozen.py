"""Pool the token vectors of an encoder that is not trained: computed once, so that many variants fit in minutes.

The head is that of the classification model: pooled vectors, their mean, dropout, a linear layer.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset, DatasetDict
from rivals import RIVALS
from rivals.teacher import attention_loss, paid_attention
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer
from variants import Variant

from shtopk import TopKPooling, draw_k
from shtopk.models import encode_in_windows
from shtopk.training.experiment import best_precision

BATCH = 32  # documents per update
EPOCHS = 8
LEARNING_RATE = 1e-2  # of the classifier
WINDOW = 256


class Split(NamedTuple):
    """A split as token vectors, document after document."""

    hidden_states: Tensor  # [T, d] float32 in memory, float16 in the cache
    evidence: Tensor  # [T] bool, tokens of the sentences hidden by the needle task
    lengths: Tensor  # [N]
    labels: Tensor  # [N]
    attention: Tensor | None = None  # [T] what the encoder pays to each token, where a scorer is taught by it

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states [B, n, d], mask [B, n] and evidence [B, n] of some documents, padded to the longest."""
        index, mask = self.places(rows)
        return self.hidden_states[index], mask, self.evidence[index] & mask

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where the tokens of some documents stand among the T, and which of them are real: [B, n] both."""
        lengths = self.lengths[rows].unsqueeze(-1)
        starts = (self.lengths.cumsum(0) - self.lengths)[rows].unsqueeze(-1)
        place = torch.arange(int(lengths.max()), device=lengths.device)
        mask = place < lengths
        return (starts + place).masked_fill(~mask, 0), mask

    def attention_loss(self, scores: Tensor, rows: Tensor) -> Tensor:
        """How far the scores [B, n] of some documents are from the attention that is paid to their tokens."""
        assert self.attention is not None
        index, mask = self.places(rows)
        return attention_loss(scores, self.attention[index], mask)


class Classifier(nn.Module):
    """k pooled vectors -> logits, and the positions they came from."""

    def __init__(self, hidden_size: int, classes: int, k: int | float, variant: Variant):
        super().__init__()
        self.sees_evidence_alone = variant.kind == "oracle"
        self.taught_by_attention = variant.kind == "taught"
        make = RIVALS.get(variant.kind, TopKPooling)
        self.pooling = make(hidden_size, k, **variant.pooling)
        self.pooling.requires_grad_(not variant.freeze_scorer)
        self.dropout, self.output = nn.Dropout(0.1), nn.Linear(hidden_size, classes)

    def pool(self, hidden_states: Tensor, mask: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Document vectors [B, d], positions [B, k] and which of these hold a token [B, k]."""
        pooled = self.pooling(hidden_states, evidence if self.sees_evidence_alone else mask)
        share = pooled.mask.unsqueeze(-1).to(pooled.values.dtype)
        document = (pooled.values * share).sum(1) / share.sum(1).clamp(min=1)
        return document, pooled.positions, pooled.mask.bool()

    def classify(self, documents: Tensor) -> Tensor:
        """Document vectors [B, d] -> logits [B, classes]."""
        return self.output(self.dropout(documents))


def token_vectors(
    task: str, dataset: DatasetDict, encoder: Path, device: torch.device, cache: Path
) -> dict[str, Split]:
    """Encode every split once, or read what an earlier run left in the cache."""
    splits = {}
    for name, split in dataset.items():
        path = cache_of(cache, f"{task}-{name}", split)
        if not path.exists():
            save_file(encode(split, encoder, device, f"encode {task} ({name})"), path)
        tensors = load_file(path)
        tensors["hidden_states"] = tensors["hidden_states"].float()
        splits[name] = Split(**{field: tensor.to(device) for field, tensor in tensors.items()})
    return splits


def with_attention(name: str, dataset: Dataset, split: Split, encoder: Path, cache: Path) -> Split:
    """The split with what the encoder's last layer pays to each token: its [CLS], or the first token of a window."""
    path = cache_of(cache, f"{name}-attention", dataset)
    device = split.hidden_states.device
    if not path.exists():
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        model = AutoModel.from_pretrained(encoder, attn_implementation="eager").to(device).eval()
        paid = []
        for start in tqdm(range(0, len(dataset), 8), desc=f"attention of {name}"):
            tokens = tokenizer(dataset[start : start + 8]["text"], padding=True, return_tensors="pt", verbose=False)
            ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
            paid.append(paid_attention(model, ids, mask, window=WINDOW)[mask.bool()].cpu())
        save_file({"attention": torch.cat(paid)}, path)
    return split._replace(attention=load_file(path)["attention"].to(device))


def cache_of(cache: Path, name: str, split: Dataset) -> Path:
    """The file for what is computed of these texts."""
    cache.mkdir(parents=True, exist_ok=True)
    fingerprint = hashlib.sha256("\0".join([*split["text"], str(WINDOW)]).encode()).hexdigest()[:16]
    return cache / f"{name}-{fingerprint}.safetensors"


def encode(split: Dataset, encoder: Path, device: torch.device, description: str) -> dict[str, Tensor]:
    """The fields of a `Split`."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).to(device).eval()
    hidden_states, evidence, lengths = [], [], []
    for start in tqdm(range(0, len(split), 8), desc=description):
        rows = split[start : start + 8]
        tokens = tokenizer(rows["text"], padding=True, return_offsets_mapping=True, return_tensors="pt", verbose=False)
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=best_precision() == "bf16"):
            vectors = encode_in_windows(model, ids, mask, window=WINDOW)
        real = tokens["attention_mask"].bool()
        hidden_states.append(vectors.half().cpu()[real])
        lengths.append(real.sum(-1))
        if "evidence_start" in rows:
            first, last = tokens["offset_mapping"].unbind(-1)  # characters
            begin, end = (torch.tensor(rows[f"evidence_{edge}"]).unsqueeze(-1) for edge in ("start", "end"))
            evidence.append(((first < end) & (last > begin) & (last > first))[real])
        else:
            evidence.append(torch.zeros(int(real.sum()), dtype=torch.bool))
    fields = {"hidden_states": hidden_states, "evidence": evidence, "lengths": lengths}
    return {name: torch.cat(parts) for name, parts in fields.items()} | {"labels": torch.tensor(split["label"][:])}


def fit(
    classifier: Classifier, train: Split, seed: int, scorer_learning_rate: float, epochs: int = EPOCHS,
    k_range: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Train with the same budget for every variant. k_range: draw k for each update from there."""
    torch.manual_seed(seed)
    scorer = list(classifier.pooling.parameters())
    head = list(classifier.output.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": scorer, "weight_decay": 0.0}, {"params": head, "weight_decay": 0.01}], lr=LEARNING_RATE
    )
    updates = epochs * -(-len(train.labels) // BATCH)
    documents = None
    if not any(parameter.requires_grad for parameter in scorer):  # nothing to learn there: pool once
        with torch.no_grad():
            everything = torch.arange(len(train.labels), device=train.labels.device).split(BATCH)
            documents = torch.cat([classifier.pool(*train.batch(rows))[0] for rows in everything])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[scorer_learning_rate, LEARNING_RATE],
        total_steps=updates,
        pct_start=0.1,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    classifier.train()
    update = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train.labels), device=train.labels.device).split(BATCH):
            if hasattr(classifier.pooling, "progress"):  # a temperature that falls
                classifier.pooling.progress = update / (updates - 1)
            if k_range is not None:
                draw_k(classifier, k_range, update, seed)
            batch = train.batch(rows) if documents is None else None
            vectors = documents[rows] if batch is None else classifier.pool(*batch)[0]
            loss = nn.functional.cross_entropy(classifier.classify(vectors), train.labels[rows])
            if classifier.taught_by_attention:  # the choice is hard: the task does not reach the scorer
                loss = loss + train.attention_loss(classifier.pooling.scorer(batch[0]).squeeze(-1), rows)
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
        hidden_states, mask, evidence = split.batch(rows)
        documents, positions, kept = classifier.pool(hidden_states, mask, evidence)
        predictions.append(classifier.classify(documents).argmax(-1))
        hits += int(evidence.gather(1, positions)[kept].sum())
        kept_tokens += int(kept.sum())
    return torch.cat(predictions), hits / max(1, kept_tokens)
