"""What a language model made of a prompt, as arguments of the page: vectors kept, completion, attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shtopk.assignment import Assignment
from shtopk.integrations.decoders.families import CACHE
from shtopk.integrations.decoders.flow import record_assignments
from shtopk.integrations.decoders.installation import find_stack
from shtopk.integrations.decoders.passing import ReadPart
from shtopk.integrations.decoders.regions import default_regions
from shtopk.integrations.decoders.state import asking
from shtopk.integrations.reading import locate_prompts
from shtopk.models.checkpoint import most_tokens
from shtopk.show.describe import eager_attention, pieces, slots_of
from shtopk.show.document import Slot
from shtopk.show.summary import OutputToken


@torch.inference_mode()
def describe_completion(model, tokenizer, text: str, max_tokens: int | None = None) -> dict[str, Any]:
    """The arguments of `shtopk.show.summary_page` for a prompt, but for title and reference.

    The completion is generated as the model's generation settings say. Then prompt and completion are read once more,
    which gives the attention of every token to what was kept of the prompt, in the layers above the last pooling, or
    in all layers if nothing pools. That to the first token is left out: it rests there when nothing is looked for.

    Args:
        model: a causal language model that `pool_decoder` was called on, or one that pools nothing.
        tokenizer: its fast tokenizer.
        text: the prompt.
        max_tokens: tokens of the prompt that are read, from its end. None: all that the model has positions for.
    """
    model.eval()
    limit = min((one for one in (max_tokens, most_tokens(model)) if one is not None), default=None)
    (ids,), (spans,), (cut,) = locate_prompts(tokenizer, [text], limit)
    if not ids:  # no tokens before a prompt, and no prompt
        ids, spans = [tokenizer.pad_token_id], [(0, 0)]
    prompt = torch.tensor([ids], device=model.device)
    with record_assignments() as found:
        whole = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt))[:1]
    assignment = found[0].map(lambda x: x[:1]) if found else Assignment.of_every_token(prompt >= 0, torch.float32)
    slots = slots_of(assignment, None)
    return {
        "text": text,
        "spans": spans,
        "slots": slots,
        "tokens": _output_tokens(model, tokenizer, whole, len(ids), slots),
        "facts": _facts(model, slots, len(ids), cut, whole.shape[1] - len(ids)),
        "what": "completion",
        "reader": "the layers above the pooling" if find_stack(model) else "the model",
    }


def _output_tokens(model, tokenizer, whole: Tensor, n: int, slots: Sequence[Slot]) -> list[OutputToken]:
    """The tokens behind a prompt of n in [1, n + T] that a reader sees, each with its attention over the slots."""
    ids = whole[0, n:]  # [T]
    unseen = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    seen = [step for step, token in enumerate(ids.tolist()) if token not in unseen]
    if not seen:
        return []
    shares = attention_to_prompt(model, whole, n, len(slots))[seen]
    if len(slots) > 1:
        shares[:, [slot.position == 0 for slot in slots]] = 0
    shares = shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
    texts = pieces(tokenizer, ids[seen].tolist())
    return [OutputToken(piece, row) for piece, row in zip(texts, shares.tolist(), strict=True)]


def attention_to_prompt(model, whole: Tensor, n: int, kept: int) -> Tensor:
    """How much each token that was generated attended to the vectors that were kept of its prompt.

    Only the pass over what follows the prompt gives attention away, so that a long prompt takes no more memory than in
    generation.

    Args:
        model: a causal language model, pooled or not.
        whole: [1, n + T] the prompt and what was generated, T >= 1.
        n: tokens of the prompt.
        kept: m, vectors that are left of it above the last pooling.

    Returns:
        Tensor: [T, m] the mean over the heads of the layers above the last pooling, in float64 on the CPU.

    Raises:
        ValueError: the model does not tell what it attends to.
    """
    stack = find_stack(model)
    real = torch.ones_like(whole)
    asked: dict[str, Any] = {}
    cached: dict[str, Any] = {}
    if stack is not None:  # what is pooled is known, and nothing of what follows
        regions = default_regions(real[:, :n] > 0, stack.prompt_pooling.keep_last)[:, :-1]
        asked = {"begin": partial(ReadPart, regions)} if n > 1 else {"unpooled": (stack.prompt_pooling,)}
    with asking(**asked):
        if n > 1:
            given = {"input_ids": whole[:, : n - 1], "attention_mask": real[:, : n - 1]}
            read = model(**given, use_cache=True, logits_to_keep=1)
            cached = {name: read[name] for name in CACHE if name in read}  # arguments have the names of outputs
        with eager_attention(model):
            given = {"input_ids": whole[:, n - 1 : -1], "attention_mask": real[:, :-1]}
            out = model(**given, output_attentions=True, **cached)
    first = 0 if stack is None else max(int(layer) for layer in stack.prompt_pooling)
    above = (out.attentions or [])[first:]
    if not above or any(layer is None for layer in above):
        raise ValueError(f"a model of type {model.config.model_type} does not tell what it attends to")
    steps = whole.shape[1] - n
    total = torch.zeros(steps, kept, dtype=torch.float64)
    for layer in above:  # [1, heads, T, vectors of the prompt that it remembers + T - 1]
        shares = layer[0].double().mean(0)[:, : layer.shape[-1] - steps + 1].cpu()
        total[:, kept - shares.shape[1] :] += shares  # with a window it remembers the last ones
    return total / len(above)


def _facts(model, slots: Sequence[Slot], n: int, cut: bool, generated: int) -> list[str]:
    """Remarks on how much was read, kept and generated, and how. cut: the prompt has more tokens."""
    facts = [f"the last {n:,} tokens read"] if cut else []
    stack = find_stack(model)
    if stack is None:
        facts += [] if cut else [f"{n:,} tokens read"]
    else:
        layer, pooling = max(((int(name), one) for name, one in stack.prompt_pooling.items()), key=lambda one: one[0])
        facts += [
            f"{len(slots):,} of {n:,} tokens kept from layer {layer} on",
            str(pooling.options.eval_operator).replace("_", " "),
            f"temperature {pooling.options.temperature:g}",
        ]
    return [*facts, f"{generated:,} tokens generated"]
