"""The small Llama that is pooled in prompt_recall.py, trained from scratch to recall anything of whole prompts."""

import sys
from typing import Any

import torch
from prompt_recall_answers import answers
from prompt_recall_task import Registry
from record import RESULTS
from torch import nn
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

CACHE = RESULTS.parent / ".cache"
STAGES = ((64, 24, 2, False), (32, 96, 8, True), (16, 256, 8, True), (16, 512, 8, True))
"""(prompts of an update, words, facts, whether anything may be asked). To look for what is asked is learnt all at
once, nobody knows when, and soonest from short prompts. So all stages but the last go on until the loss is ENOUGH."""
ENOUGH, MOST = 0.3, 3000  # updates of such a stage
RATE, WARMUP, LAST = 1e-3, 100, 250  # updates of the last stage, in which the learning rate falls to a twentieth
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "initializer_range": 0.06,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def base_model(seed: int = 0) -> LlamaForCausalLM:
    """The Llama, from the cache if it is there.

    Raises:
        SystemExit: a stage took more than `MOST` updates.
    """
    folder = CACHE / f"recall-{seed}"
    if (folder / "model.safetensors").exists():
        return LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    registry = Registry("train", seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(registry), **SHAPE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP)
    *first, last = STAGES
    for drawn in first:
        if (loss := learn(model, optimizer, warmup, registry, drawn, MOST, ENOUGH)) > ENOUGH:
            sys.exit(f"expected a base with a loss of {ENOUGH} on {drawn[1]} words, got {loss:.2f}; try another seed")
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / 20, total_iters=LAST)
    learn(model, optimizer, fall, registry, last, LAST)
    model.save_pretrained(folder)
    return model.eval()


def learn(
    model: Any, optimizer: Any, scheduler: Any, registry: Registry, drawn: tuple, most: int, enough: float = 0.0
) -> float:
    """Train for so many updates, or until the loss, over some twenty updates, is enough. Returns it."""
    mean = 5.0
    for _ in (progress := tqdm(range(most), desc=f"base, {drawn[1]} words", leave=False)):
        loss = answers(model, registry.batch(*drawn)).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        mean += 0.05 * (loss.item() - mean)
        progress.set_postfix(loss=f"{mean:.3f}", refresh=False)
        if mean <= enough:
            break
    return mean
