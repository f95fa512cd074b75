"""Flash attention above a pooling, by a stand-in that sees what the real one is given: a mask of keys alone."""

import pytest
import torch
from decoders import CLOSE, WINDOWS, build, marks, padded, tokens
from torch.nn.functional import scaled_dot_product_attention
from transformers import StaticCache
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import AttentionInterface

from shtopk.integrations.decoder import pool_decoder

IDS = tokens()
N = IDS.shape[1]


def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """As flash attention does: the last query sees all keys, each one before it one less."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    t, m = query.shape[2], key.shape[2]
    seen = torch.ones(t, m, dtype=torch.bool).tril(m - t)
    if attention_mask is not None:
        assert attention_mask.shape == (len(query), m)
        seen = seen & attention_mask.bool()[:, None, None]
        seen = seen | ~seen.any(-1, keepdim=True)
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling).transpose(1, 2), None


@pytest.fixture
def flash():
    AttentionInterface.register("flash_stand_in", attend)
    AttentionMaskInterface.register("flash_stand_in", flash_attention_mask)

    def use(model):
        model.config._attn_implementation_internal = "flash_stand_in"
        return model

    yield use
    AttentionInterface._global_mapping.pop("flash_stand_in")
    AttentionMaskInterface._global_mapping.pop("flash_stand_in")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_it_says_what_sdpa_says(name, flash):
    model = pool_decoder(build(name), {1: 19, 2: 6}, keep_last=2)
    ids, mask = (torch.cat(both) for both in zip(padded(IDS[:1, 9:], left=9), padded(IDS[1:]), strict=True))
    more = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    given = [{"attention_mask": mask}, {"attention_mask": torch.ones_like(mask)}]
    expected = [torch.stack(model.generate(ids, **one, **more).logits) for one in given]
    for one, logits in zip(given, expected, strict=True):
        torch.testing.assert_close(torch.stack(flash(model).generate(ids, **one, **more).logits), logits, **CLOSE)


def test_what_it_cannot_be_told_is_refused(flash):
    model, inside = flash(pool_decoder(build(), {2: 3})), marks(IDS, 12)
    inside[:, 5] = 0
    with pytest.raises(ValueError, match="expected a compress_mask whose regions end before what follows them"):
        model(IDS, compress_mask=inside)
    model(IDS, compress_mask=marks(IDS, 12))
    with pytest.raises(ValueError, match="expected a cache that grows under flash attention, got a StaticCache"):
        model(IDS, past_key_values=StaticCache(config=model.config, max_cache_len=40))
    with pytest.raises(ValueError, match="whose sliding window would count slots; set attn_implementation='sdpa'"):
        flash(pool_decoder(build("mistral", fields=WINDOWS), {2: 3}))(IDS)
