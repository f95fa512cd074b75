"""Tiny causal language models of every family whose prompts can be pooled, and what they should say."""

import copy
import inspect

import torch
from transformers import AutoConfig, AutoModelForCausalLM

V = 60  # words
LAYERS = 4
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
         "num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": None}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "sliding_window": 9}
FIELDS = {  # the type of model, and what makes it another one -> fields of its configuration
    "gemma3_text": GEMMA | {"sliding_window_pattern": 2},
    "gpt2": {"vocab_size": V, "n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "resid_pdrop": 0.0,
             "attn_pdrop": 0.0, "embd_pdrop": 0.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None},
    "gpt_neox": SIZES,
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": None},
    "olmo2": SIZES,
    "phi3": GROUPED | {"sliding_window": None},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "smollm3": GROUPED,  # every fourth layer knows no positions
}  # fmt: skip
NAMES = list(FIELDS)
WINDOWS = {  # those that look back a window, in all layers or in some
    "mistral": GROUPED | {"sliding_window": 9},
    "phi3": GROUPED | {"sliding_window": 9},
    "gemma3_text": GEMMA | {"layer_types": ["full_attention", "sliding_attention"] * 2},
    "gemma3_text, full above": GEMMA | {"layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2},
    "gemma3_text, full below": GEMMA | {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2},
}
HARD = {"operator": "hard", "protected": ()}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def build(name="llama", attention="sdpa", fields=FIELDS, **more):
    """A language model, with attention that depends on positions."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split(",")[0], **fields[name] | more)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return model.eval()


def tokens(rows=2, n=24, seed=0):
    """[rows, n] words, none of them padding."""
    return torch.randint(3, V, (rows, n), generator=torch.Generator().manual_seed(seed))


def padded(ids, left=0, right=0):
    """One row with padding, and its mask."""
    sides = [torch.zeros(len(ids), size, dtype=torch.long) for size in (left, right)]
    ids = torch.cat([sides[0], ids, sides[1]], 1)
    return ids, (ids != 0).long()


def marks(ids, pooled, total=None):
    """A compress_mask that marks the first tokens of each row."""
    mask = torch.zeros(len(ids), total or ids.shape[1], dtype=torch.long)
    mask[:, :pooled] = 1
    return mask


def places(cache, layer):
    """[B, m] where the vectors of a layer stand."""
    return cache.layers[layer].places


def seen(cache, layer, n):
    """[B, n] bool, True for the columns whose token came through to a layer."""
    columns = places(cache, layer)
    found = torch.zeros(len(columns), n + 1, dtype=torch.bool)
    return found.scatter(1, columns.masked_fill(columns < 0, n), True)[:, :n]


def with_holes(model, ids, open_to, hidden=None):
    """The logits of an unpooled model whose layers do not see some tokens, by masks of its own.

    Args:
        model: unpooled.
        ids: [B, n].
        open_to: {layer: [B, n] bool} False for the tokens that a layer does not see.
        hidden: [n, n] bool, True where a token does not see another in these layers, though it may in others.
    """
    n = ids.shape[1]
    base = copy.deepcopy(model)
    stack = base.base_model
    distance = torch.arange(n)[:, None] - torch.arange(n)

    def masked(names, mask):
        def hook(layer, args, kwargs):
            given = dict(zip(names, args, strict=False)) | kwargs
            given["attention_mask"] = mask
            return tuple(given.pop(name) for name in names[: len(args)]), given

        return hook

    for index, layer in enumerate(getattr(stack, "h", None) or stack.layers):
        if index not in open_to:
            continue
        attention = getattr(layer, "self_attn", None)
        window = getattr(attention, "sliding_window", getattr(model.config, "sliding_window", None))
        see = (distance >= 0) & open_to[index][:, None, None, :]
        see = see if hidden is None else see & ~hidden
        see = see if window is None else see & (distance < window)
        see = see | torch.eye(n, dtype=torch.bool)
        mask = torch.zeros(see.shape).masked_fill(~see, torch.finfo(torch.float32).min)
        names = list(inspect.signature(layer.forward).parameters)
        layer.register_forward_pre_hook(masked(names, mask), with_kwargs=True)
    with torch.no_grad():
        return base(ids, use_cache=False).logits
