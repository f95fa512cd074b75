"""The ways to choose what is kept of a prompt, each in the place of the pooling that `pool_decoder` made.

    pool_decoder(model, {8: 256})
    put_rival(model, 8, "SnapKV", 256)

A row is f(model, layer, k) -> TopKPooling, with a model that `pool_decoder` was called on and the number of the layer
whose input is pooled. Layers above see the kept vectors as they see ours, in the same places and cache. So what is
compared is the choice. What these ways do in their papers, one choice for each head of each layer, `presses` has.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rivals.drawn import RandomTokens
from rivals.ends import FirstAndLast
from rivals.expected_attention import ExpectedAttention
from rivals.hard_choice import FIRST, HardChoice
from rivals.heads import LlamaHeads
from rivals.key_norm import KeyNorm
from rivals.snapkv import SnapKV, SnapKVOfQuestion
from rivals.stretches import StretchesOfPrompt
from shtopk import TopKPooling

PromptRival = Callable[[Any, int, int], TopKPooling]


def prompt_pooling(model: nn.Module) -> Any:
    """The poolings of a model that `pool_decoder` was called on, by the number of the layer as a string.

    Raises:
        ValueError: a model that it was not called on.
    """
    for module in model.modules():
        if hasattr(module, "prompt_pooling"):
            return module.prompt_pooling
    raise ValueError(f"expected a model that pool_decoder was called on, got {type(model).__name__}; call it before")


def by_place(kind: type[HardChoice]) -> PromptRival:
    """A way that needs nothing of the model."""
    return lambda model, layer, k: kind(model.config.hidden_size, k)


def by_heads(kind: Callable[[LlamaHeads, int, int], HardChoice]) -> PromptRival:
    """A way that looks at the queries and keys of the layer."""
    return lambda model, layer, k: kind(LlamaHeads(model, layer), model.config.hidden_size, k)


def of_question(model: Any, layer: int, k: int) -> SnapKVOfQuestion:
    """SnapKV with the question in sight: the tokens at the end of the prompt that are kept whole."""
    pooling = prompt_pooling(model)
    rival = SnapKVOfQuestion(model, LlamaHeads(model, layer), model.config.hidden_size, k, pooling.keep_last)
    pooling.handles.extend(rival.handles)  # so that unpool_decoder removes them
    return rival


def learned(operator: str, model: Any, layer: int, k: int) -> TopKPooling:
    """A linear scorer and another operator than ours."""
    return TopKPooling(model.config.hidden_size, k, operator=operator, eval_operator=operator, protected=FIRST)


def strided(model: Any, layer: int, k: int) -> TopKPooling:
    """Every (n/k)-th token."""
    return TopKPooling(model.config.hidden_size, k, operator="hard", scorer="strided", protected=FIRST)


TRAINING_FREE: dict[str, PromptRival] = {
    "first and last tokens": by_place(FirstAndLast),
    "every (n/k)-th token": strided,
    "random tokens": by_place(RandomTokens),
    "key norm": by_heads(KeyNorm),
    "expected attention": by_heads(ExpectedAttention),
    "SnapKV": by_heads(SnapKV),
    "SnapKV, question in sight": of_question,
    "means of stretches": lambda model, layer, k: StretchesOfPrompt(model.config.hidden_size, k),
}
"""Ways that have no parameters. The model around them can be tuned, but for SnapKV with the question in sight."""

TRAINED: dict[str, PromptRival] = {
    "hard top-k, gated": partial(learned, "hard_gated"),
    "hard top-k, straight-through": partial(learned, "hard_straight_through"),
    "iterative top-k": partial(learned, "iterative"),
}
"""Ways whose scorer has to learn."""

PROMPT_RIVALS: dict[str, PromptRival] = TRAINING_FREE | TRAINED


def put_rival(model: Any, layer: int, name: str, k: int) -> TopKPooling:
    """Let a rival pool the prompts of a model that `pool_decoder` was called on, in place of what does so far.

    Args:
        model: changed in place.
        layer: that is pooled before.
        name: a row of PROMPT_RIVALS.
        k: slots.
    """
    pooling = prompt_pooling(model)
    rival = PROMPT_RIVALS[name](model, layer, k).to(model.device, model.dtype).train(model.training)
    pooling[str(layer)] = rival
    return rival
