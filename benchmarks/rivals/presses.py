"""kvpress itself, where it is installed: the whole prompt goes through every layer, then keys and values are dropped.

Each head of each layer keeps k keys of its own choice. The layers below `first_layer` keep all, so that a cache is as
large as that of a model which pools before this layer; 0 is kvpress's own use.

kvpress 0.5.5 asks for transformers below 5.3, where layers are told at which places of the cache they write. They no
longer are, and these presses miss nothing else. So its own hook is given that here, and `pip install --no-deps kvpress
cachetools fire termcolor pandas` is enough. To import it puts a wrapper around every attention function of
transformers, for the whole process; this module imports it when a press is made.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

SNAPKV, WINDOW = "SnapKVPress", 64
PRESSES: dict[str, str] = {  # row -> its name in kvpress
    "kvpress: first and last tokens": "StreamingLLMPress",
    "kvpress: random tokens": "RandomPress",
    "kvpress: key norm": "KnormPress",
    "kvpress: expected attention": "ExpectedAttentionPress",
    "kvpress: SnapKV": SNAPKV,
    "kvpress: key difference": "KeyDiffPress",
    "kvpress: TOVA": "TOVAPress",
}
IN_SIGHT = "kvpress: SnapKV, question in sight"  # a row of press_and_answer beside these


def installed() -> bool:
    """Whether kvpress is there."""
    return find_spec("kvpress") is not None


def make_press(row: str, n: int, k: int, window: int | None = None) -> Any:
    """A press of kvpress that keeps exactly k of n keys in each head.

    Args:
        row: one of PRESSES.
        n: tokens of the prompt.
        k: of them to keep, 1 <= k < n.
        window: of SnapKV, tokens; None: 64, and half of k at most.

    Raises:
        ModuleNotFoundError: kvpress is not installed.
    """
    if not installed():
        raise ModuleNotFoundError(
            f"{row} needs kvpress; run pip install --no-deps kvpress cachetools fire termcolor pandas, "
            "or leave the row out"
        )
    settings: dict[str, Any] = {"compression_ratio": 1 - (k + 0.5) / n}  # kvpress rounds n (1 - ratio) down
    if PRESSES[row] == SNAPKV:
        settings["window_size"] = window or max(1, min(WINDOW, k // 2))
    return getattr(importlib.import_module("kvpress"), PRESSES[row])(**settings)


@contextmanager
def pressed(model: Any, press: Any, first_layer: int) -> Iterator[None]:
    """A context in which a forward pass over a prompt leaves what the press keeps in the cache.

    Args:
        model: a Llama or alike, with sdpa attention.
        press: of kvpress.
        first_layer: layers from this one on.
    """
    stack = model.get_decoder()
    press.post_init_from_model(model)
    handles = []

    def forward_hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        places = torch.arange(kwargs["hidden_states"].shape[1])
        return press.forward_hook(module, args, kwargs | {"cache_position": places}, output)

    try:
        for layer in stack.layers[first_layer:]:
            layer.self_attn.rotary_emb = stack.rotary_emb  # which some presses look for there
            handles.append(layer.self_attn.register_forward_hook(forward_hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in stack.layers[first_layer:]:
            del layer.self_attn.rotary_emb


@torch.inference_mode()
def answer(model: Any, press: Any, context: Tensor, question: Tensor, new_tokens: int, first_layer: int = 0) -> Tensor:
    """Read a context, drop keys and values, then read a question and go on greedily: ids [B, new_tokens].

    Args:
        model: a Llama or alike that is not pooled, with sdpa attention.
        press: of kvpress; None: nothing is dropped.
        context: [B, n] ids, without padding.
        question: [B, m] ids, at least one.
        new_tokens: how many to generate; a caller cuts them where the text ends.
        first_layer: see `pressed`.
    """
    _, cache = _read(model, press, context, first_layer)
    new: list[Tensor] = []
    for step in range(question.shape[1] + new_tokens - 1):
        ids = question[:, step : step + 1] if step < question.shape[1] else new[-1]
        logits = _step(model, cache, ids, context.shape[1] + step)
        if step >= question.shape[1] - 1:
            new.append(logits.argmax(-1))
    return torch.cat(new, 1)


@torch.inference_mode()
def predict(model: Any, press: Any, context: Tensor, following: Tensor, first_layer: int = 0) -> Tensor:
    """Read a context, drop keys and values, then read what follows: logits [B, m, V] of each of its tokens.

    Args:
        following: [B, m] ids; the others as for `answer`.
    """
    logits, cache = _read(model, press, context, first_layer)
    steps = range(following.shape[1] - 1)
    rest = [_step(model, cache, following[:, step : step + 1], context.shape[1] + step) for step in steps]
    return torch.cat([logits, *rest], 1)


def _read(model: Any, press: Any, context: Tensor, first_layer: int) -> tuple[Tensor, DynamicCache]:
    """(logits [B, 1, V] of what comes next, the cache that is left)."""
    if model.config._attn_implementation != "sdpa":
        raise ValueError(f"expected sdpa attention, got {model.config._attn_implementation}: its masks fit one length")
    cache = DynamicCache(config=model.config)
    with nullcontext() if press is None else pressed(model, press, first_layer):
        return model(context, past_key_values=cache, logits_to_keep=1).logits, cache


def _step(model: Any, cache: DynamicCache, ids: Tensor, position: int) -> Tensor:
    """Logits [B, 1, V] after one more token, ids [B, 1].

    More at a time would need a mask for each layer, as they remember different numbers of keys.
    """
    return model(ids, past_key_values=cache, position_ids=torch.full_like(ids, position)).logits


def press_and_answer(
    model: Any, row: str, context: Tensor, question: Tensor, new_tokens: int, k: int, first_layer: int = 0
) -> Tensor:
    """The `answer` of a row of PRESSES, or of IN_SIGHT, with k keys of the context in each head.

    A press sees the context alone. In IN_SIGHT it sees the question, too, which its window is and which is kept beside
    the k.
    """
    window = None
    if row == IN_SIGHT:
        row, window = "kvpress: SnapKV", question.shape[1] - 1
        context, question = torch.cat([context, question[:, :-1]], 1), question[:, -1:]
        k += window
    n = context.shape[1]
    press = make_press(row, n, k, window) if k < n else None
    return answer(model, press, context, question, new_tokens, first_layer)
