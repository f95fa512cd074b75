"""Models, options and calls that `pool_decoder` cannot serve: each is told in one line."""

import warnings

import accelerate
import pytest
import torch
from decoders import V, build, tokens
from encoders import CONFIGS
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForTokenClassification,
    OPTConfig,
    OPTForCausalLM,
)

from shtopk.integrations.decoder import pool_decoder, unpool_decoder
from shtopk.options import PoolingOptions

IDS = tokens()
FAMILIES = "gemma3_text, gpt2, gpt_neox, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3"
SMALL = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 8}


def bart():
    return BartForConditionalGeneration(BartConfig(vocab_size=V, d_model=16, encoder_layers=1, decoder_layers=1,
                                                   encoder_attention_heads=2, decoder_attention_heads=2))  # fmt: skip


def cross_attending():
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, add_cross_attention=True))


def shared():
    model = build()
    model.model.layers[3] = model.model.layers[2]
    return model


@pytest.mark.parametrize(("model", "message"), [
    (bart, f"has an encoder: call pool_encoder; pool_decoder is for {FAMILIES}"),
    (lambda: OPTForCausalLM(OPTConfig(**SMALL)), f"of a model of type opt; it works for {FAMILIES}"),
    (lambda: BertModel(CONFIGS["bert"]), f"of a model of type bert; it works for {FAMILIES}"),
    (cross_attending, "expected a causal language model of type gpt2, got GPT2LMHeadModel"),
    (lambda: build("gemma3_text", use_bidirectional_attention=True), "got a bidirectional Gemma3ForCausalLM"),
    (lambda: torch.nn.Linear(2, 2), "expected a model of transformers, got Linear"),
    (lambda: LlamaForTokenClassification(build().config), "answers for every token of the prompt"),
    (lambda: pool_decoder(build(), {1: 4}), "is pooled already; call unpool_decoder first"),
    (lambda: pool_decoder(build(), {1: 4}).model, "is pooled already; call unpool_decoder first"),
    (shared, "expected layers that share no modules, got a LlamaModel with one in two places"),
])  # fmt: skip
def test_a_model_that_cannot_be_pooled_is_told_in_a_line(model, message):
    with pytest.raises(ValueError, match=message):
        pool_decoder(model(), {1: 4})


@pytest.mark.parametrize(("k_by_layer", "options", "message"), [
    ({4: 8}, {}, r"expected k_by_layer to name layers in 1..3 for this LlamaModel, got 4$"),
    ({0: 8}, {}, r"to name layers in 1..3 for this LlamaModel, got 0 \(layer 0 counts the tokens\)"),
    ({}, {}, "expected different layers and their k"),
    ({"one": 8}, {}, "expected different layers and their k"),
    ({1: 8, "1": 4}, {}, "expected different layers and their k"),
    (8, {}, "expected different layers and their k"),
    ({1: 8, 2: 8}, {}, "expected fewer vectors at later layers"),
    ({1: 0}, {}, "expected k to be a whole number >= 1 or a share"),
    ({1: 1}, {}, "k_by_layer, at layer 1: expected fewer protected tokens than k = 1"),
    ({1: 8}, {"keep_last": 0}, "expected keep_last >= 1, got 0"),
    ({1: 8}, {"keep_last": True}, "expected keep_last >= 1, got True"),
    ({1: 8}, {"keep_order": False}, "expected keep_order to be true between layers"),
    ({1: 8}, {"scorer": torch.nn.Linear(32, 1)}, "expected a scorer that has a name"),
    ({1: 8}, {"operater": "hard"}, "expected options of TopKPooling"),
])  # fmt: skip
def test_impossible_options_are_told_in_a_line_and_change_nothing(k_by_layer, options, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        pool_decoder(model, k_by_layer, **options)
    with pytest.raises(ValueError, match="expected a model that pool_decoder was called on, got an unpooled Llama"):
        unpool_decoder(model)


def test_options_come_as_one_record_or_by_name():
    record = PoolingOptions(operator="hard", protected=(0, 1))
    model = pool_decoder(build(), {1: 8}, record)
    assert model.model.prompt_pooling["1"].options is record
    with pytest.raises(ValueError, match="expected options as one record or by name, got both: scorer"):
        pool_decoder(build(), {1: 8}, record, scorer="mlp")


@pytest.mark.parametrize(("kind", "message"), [
    ("flex_attention", "expected sdpa, eager or flash attention, got flex_attention"),
    ("paged|sdpa", "expected sdpa, eager or flash attention, got paged|sdpa"),
    ("paged|flash_attention_2", "expected sdpa, eager or flash attention, got paged|flash_attention_2"),
])  # fmt: skip
def test_attention_that_takes_other_masks_is_refused_where_a_prompt_is_pooled(kind, message):
    model = pool_decoder(build(), {1: 4})
    model.config._attn_implementation_internal = kind
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        model.model(IDS)


def test_texts_packed_in_one_row_are_refused():
    model = pool_decoder(build(), {1: 4})
    packed = torch.cat([torch.arange(10), torch.arange(14)])[None]
    block = torch.block_diag(torch.ones(10, 10), torch.ones(14, 14)).tril().bool().expand(2, 1, -1, -1)
    labels = IDS.masked_fill(torch.arange(24) < 9, -100)
    for given in (
        {"position_ids": packed},
        {"position_ids": packed, "labels": labels},
        {"attention_mask": block},
        {"attention_mask": torch.zeros(block.shape).masked_fill(~block, torch.finfo(torch.float32).min)},
        {"cu_seq_lens_q": torch.tensor([0, 10, 24])},
    ):
        with pytest.raises(ValueError, match="expected one text in each row, got"):
            model(IDS, **given)


def test_a_mask_that_knows_less_than_the_tokens_is_refused():
    model = pool_decoder(build(), {1: 4})
    with pytest.raises(ValueError, match=r"expected an attention mask of all 24 tokens, got one of 23$"):
        model(IDS, attention_mask=torch.ones(2, 23))
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="of all 3 tokens and of the 24 in the cache, got one of 3"):
        model(IDS[:, :3], past_key_values=cache, attention_mask=torch.ones(2, 3))


def test_layers_that_are_offloaded_are_refused(tmp_path):
    model = build()
    places = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", "model.layers"), "cpu")
    places |= {"model.layers.2": "disk"}
    model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    with pytest.raises(ValueError, match="expected layers in memory, got layer 2 offloaded; pool first"):
        pool_decoder(model, {2: 4})


def test_a_cache_that_a_pooled_model_did_not_fill_is_told_and_its_own_is_not():
    peft = pytest.importorskip("peft")
    model = pool_decoder(build(), {1: 8})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            for cache in (DynamicCache(), model(IDS[:, :5], use_cache=True).past_key_values):
                model(IDS[:, :5], past_key_values=cache)
                model(IDS, past_key_values=cache)
    prefix = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.warns(UserWarning, match="such as PEFT's prefix tuning makes, no prompt is pooled"):
        prefix.eval()(input_ids=IDS)


def test_a_mask_of_pairs_that_says_where_padding_is_is_taken():
    model, ids = pool_decoder(build(), {1: 4}), IDS.clone()
    ids[0, :5] = 0
    pairs = torch.ones(24, 24, dtype=torch.bool).tril() & (ids != 0)[:, None, None]
    with torch.no_grad():
        expected = model(ids, attention_mask=(ids != 0).long()).logits
        assert model(ids, attention_mask=pairs).logits[ids != 0].allclose(expected[ids != 0], atol=1e-5)
    with pytest.raises(
        ValueError, match=r"expected an attention mask \[B, n\] or \[B, 1, n, m\], got one \[2, 24, 24\]"
    ):
        model(ids, attention_mask=pairs[:, 0])
