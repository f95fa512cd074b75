"""Pooled language models that are saved, loaded, copied, printed and unpooled."""

import copy
import json

import pytest
import torch
from decoders import NAMES, build, tokens
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from shtopk.integrations import encoder
from shtopk.integrations.decoder import load_pooled, pool_decoder, unpool_decoder
from shtopk.options import PoolingOptions
from shtopk.pooling import poolings

IDS = tokens()


def logits(model, **more):
    with torch.no_grad():
        return model(IDS, **more).logits


def pooled(name="llama"):
    model = pool_decoder(build(name), {1: 9, 2: 0.3}, operator="iterative", scorer="mlp", keep_last=3)
    for pooling in poolings(model):  # far from how they are drawn
        for parameter in pooling.parameters():
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_says_the_same(name, tmp_path):
    model = pooled(name)
    model.save_pretrained(tmp_path)
    loaded = load_pooled(AutoModelForCausalLM, tmp_path).eval()
    assert type(loaded).__name__ == type(model).__name__ and logits(loaded).equal(logits(model))
    assert loaded.generate(IDS[:1], max_new_tokens=2, k=4).shape == (1, 26)


def test_what_is_saved_is_described_and_loads_again_from_what_was_loaded(tmp_path):
    model = pooled()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["decoder_pooling"] == {
        "k_by_layer": {"1": 9, "2": 0.3}, "keep_last": 3, "operator": "iterative", "eval_operator": "iterative",
        "temperature": 1.0, "initial_temperature": None, "scorer": "mlp", "keep_order": True, "protected": [0],
    }  # fmt: skip
    load_pooled(LlamaForCausalLM, tmp_path).save_pretrained(tmp_path / "again")
    assert logits(load_pooled(LlamaForCausalLM, tmp_path / "again").eval()).equal(logits(model))
    assert encoder.load_pooled is load_pooled  # one for both


def test_the_class_of_a_pooled_model_is_loaded_and_pooled_as_any_other(tmp_path):
    model = pooled()
    model.save_pretrained(tmp_path)
    assert logits(load_pooled(type(model), tmp_path).eval()).equal(logits(model))
    assert poolings(pool_decoder(type(model)(build("llama").config), {1: 9}))
    copied = copy.deepcopy(pool_decoder(type(model).from_pretrained(tmp_path), {1: 9}))
    assert type(unpool_decoder(copied)) is LlamaForCausalLM


def test_it_is_loaded_in_the_type_that_it_was_saved_in(tmp_path):
    pooled().bfloat16().save_pretrained(tmp_path)
    for kind in (AutoModelForCausalLM, LlamaForCausalLM):
        assert load_pooled(kind, tmp_path, dtype="auto").dtype == torch.bfloat16


def test_the_bare_model_of_a_pooled_one_loads_pooled(tmp_path):
    model = pooled()
    model.save_pretrained(tmp_path)
    bare = load_pooled(AutoModel, tmp_path).eval()
    with torch.no_grad():
        assert bare(IDS).last_hidden_state.equal(model.model(IDS).last_hidden_state)


def test_what_was_not_saved_pooled_is_not_loaded_so(tmp_path):
    model = pooled()
    model.save_pretrained(tmp_path / "pooled")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "pooled")  # leaves the poolings out
    assert not poolings(plain)
    plain.save_pretrained(tmp_path / "lost")
    with pytest.raises(ValueError, match=r"lack model.prompt_pooling.1.scorer.*saved without its poolings"):
        load_pooled(AutoModelForCausalLM, tmp_path / "lost")
    build().save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="expected a checkpoint saved after pool_encoder or pool_decoder"):
        load_pooled(AutoModelForCausalLM, tmp_path / "plain")


def test_a_copy_is_pooled_and_stays_so_when_the_other_is_unpooled():
    model = pooled()
    expected = logits(model)
    other = copy.deepcopy(model)
    plain = logits(unpool_decoder(model))
    assert logits(other).equal(expected) and not plain.allclose(expected, atol=1e-2)
    assert plain.equal(logits(build())) and logits(unpool_decoder(other)).equal(plain)


def test_unpooled_it_has_its_class_its_configuration_and_its_answers_again():
    model = build()
    config, expected = model.config.to_dict(), logits(model)
    unpool_decoder(pool_decoder(model, {2: 4}))
    assert type(model) is LlamaForCausalLM and model.config.to_dict() == config and logits(model).equal(expected)
    assert not any(vars(module)["_forward_pre_hooks"] or vars(module)["_forward_hooks"] for module in model.modules())
    pool_decoder(model, {3: 4})


def test_printed_it_shows_its_poolings():
    shown = str(pooled())
    assert "PromptPooling(\n      keep_last=3" in shown
    assert "(1): TopKPooling(\n        k=9, operator=iterative" in shown


def test_a_bare_model_is_pooled_as_one_with_a_head():
    model = pooled()
    bare = build().model
    pool_decoder(bare, {1: 9, 2: 0.3}, operator="iterative", scorer="mlp", keep_last=3)
    bare.prompt_pooling.load_state_dict(model.model.prompt_pooling.state_dict())
    with torch.no_grad():
        expected = model.model(IDS, k=5).last_hidden_state
        assert bare(IDS, k=5).last_hidden_state.equal(expected)


def test_another_model_of_the_same_configuration_is_not_said_to_be_pooled():
    model = build()
    other = LlamaForCausalLM(model.config)
    pool_decoder(model, {1: 9})
    assert model.config.decoder_pooling and model.model.config is model.config
    assert not hasattr(other.config, "decoder_pooling")


def test_k_is_saved_as_it_is_now(tmp_path):
    model = pooled()
    first, model.model.prompt_pooling.keep_last = poolings(model)[0], 2
    first.k = 4
    model.save_pretrained(tmp_path)
    loaded = load_pooled(AutoModelForCausalLM, tmp_path).eval()
    assert poolings(loaded)[0].k == 4 and logits(loaded).equal(logits(model))


def test_poolings_of_several_options_are_not_saved_as_those_of_one(tmp_path):
    model = pooled()
    poolings(model)[0].options = PoolingOptions(operator="hard", scorer="mlp", protected=(0,))
    with pytest.raises(ValueError, match="expected poolings of the same options to be saved"):
        model.save_pretrained(tmp_path)
