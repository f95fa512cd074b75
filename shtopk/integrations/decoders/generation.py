"""What `generate` of a pooled language model takes beside what it took before, and what it refuses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from shtopk.integrations.adapters import PooledModel
from shtopk.integrations.decoders.families import cache_in
from shtopk.integrations.decoders.installation import find_stack
from shtopk.integrations.decoders.regions import check_shape
from shtopk.integrations.decoders.state import asking
from shtopk.integrations.layers.arguments import by_name

NAMES = list(inspect.signature(GenerationMixin.generate).parameters)[1:]
PROMPTS = ("inputs_embeds", "inputs", "input_ids")
ASSISTED = ("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "use_mtp")


class PooledDecoder(PooledModel):
    """What `pool_decoder` makes of the class of a model, which keeps its name."""

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Of transformers, which `generate_batch` begins with: it reads prompts into pages of a cache of its own.

        Raises:
            ValueError: always.
        """
        raise ValueError("continuous batching of a pooled model is not supported; call generate with a batch")

    def generate(self, *args: Any, k: int | float | None = None, compress_mask: Any = None, **kwargs: Any) -> Any:
        """`generate` of the model, with what `pool_decoder` explains: k and compress_mask."""
        check_generation(self, by_name(NAMES, args, kwargs), compress_mask)
        with asking(of=find_stack(self), k=k, compress_mask=compress_mask, generating=True):
            return super().generate(*args, **kwargs)  # type: ignore[misc]


def check_generation(model: Any, given: Mapping[str, Any], compress_mask: Any) -> None:
    """Refuse what would compress what is generated, or read a prompt otherwise than it was trained."""
    # What a given configuration leaves out, transformers takes from the model's own.
    configs = (given.get("generation_config"), model.generation_config)
    values = (given, *(vars(config) for config in configs if config is not None))

    def setting(name: str) -> Any:
        return next((each[name] for each in values if each.get(name) is not None), None)

    if setting("use_cache") is False:
        raise ValueError("expected use_cache, without which every step would pool what was generated; leave it out")
    if any(setting(name) for name in ASSISTED):
        raise ValueError("assisted decoding of a pooled model is not supported; leave out the assistant")
    if setting("prefill_chunk_size") is not None:
        raise ValueError("expected a prompt in one piece, got prefill_chunk_size; call read_prompt")
    if (kind := setting("cache_implementation")) in ("paged", "quantized"):
        raise ValueError(f"expected a cache such as DynamicCache, got cache_implementation={kind!r}; leave it out")
    cache = cache_in(given)
    if compress_mask is not None and cache is not None and int(cache.get_seq_length()):
        raise ValueError("expected a compress_mask with a prompt, got it with the cache of a prompt; leave it out")
    if compress_mask is not None and given.get("negative_prompt_ids") is not None:
        raise ValueError("expected a compress_mask without a negative prompt, which it does not mark; leave one out")
    tokens = next((given[name] for name in PROMPTS if given.get(name) is not None), None)
    if isinstance(tokens, Tensor) and tokens.dim() > 1:
        if not tokens.shape[1]:
            raise ValueError("expected prompts of at least one token to generate, got none")
        if compress_mask is not None:
            check_shape(compress_mask, tokens.shape[:2])  # before there is a row for each beam
