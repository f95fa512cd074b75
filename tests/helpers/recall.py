"""A language model that tells which word of a prompt was marked, and prompts for it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, MARKED, ASKED = 40, 8, 8  # words below 8 are those to tell; 8 asks for it
TINY = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def tiny_llama(layers: int = 4, **fields) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**TINY, num_hidden_layers=layers, **fields)).eval()


def batches(size: int = 32, n: int = 24) -> Iterator[dict[str, Tensor]]:
    """Without end: input_ids [size, n + 2] of n words, the question and its answer; labels of the answer alone."""
    draw = torch.Generator().manual_seed(0)
    while True:
        answers = torch.randint(MARKED, (size, 1), generator=draw)
        place = torch.rand(size, n, generator=draw).argmax(-1, keepdim=True)
        words = torch.randint(ASKED + 1, WORDS, (size, n), generator=draw).scatter(1, place, answers)
        input_ids = torch.cat([words, torch.full((size, 1), ASKED), answers], 1)
        labels = input_ids.clone()
        labels[:, :-1] = -100
        yield {"input_ids": input_ids, "labels": labels}


def right(model: LlamaForCausalLM, **asked) -> float:
    """Share of the answers that are right; a guess is right in 1 of 8."""
    prompts = next(batches(300))["input_ids"]
    said = model.eval().generate(prompts[:, :-1], max_new_tokens=1, do_sample=False, pad_token_id=WORDS, **asked)
    return (said[:, -1] == prompts[:, -1]).float().mean().item()


@functools.cache
def trained_state() -> dict[str, Tensor]:
    """The parameters of a model of two layers that has learnt the task. What it looks for is left to its upper layer:
    the lower one has no attention.
    """
    model = tiny_llama(layers=2).train()
    model.model.layers[0].self_attn.o_proj.weight.requires_grad_(False).zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = batches()
    for _ in range(90):
        model(**next(rows)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def trained_llama() -> LlamaForCausalLM:
    model = tiny_llama(layers=2)
    model.load_state_dict(trained_state())
    return model
