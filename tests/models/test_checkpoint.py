"""`load_checkpoint` takes whatever classifies or summarizes, and refuses everything else in one line."""

import json
import shutil

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model
from tiny import BART, BERT, WORDS, tiny_tokenizer
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertForSequenceClassification, BertModel

from shtopk.integrations.encoder import load_pooled, pool_encoder
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification, load_checkpoint
from shtopk.pooling import poolings

INPUT_IDS = torch.randint(4, len(WORDS), (2, 30), generator=torch.Generator().manual_seed(0))


def saved(model, folder):
    model.eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def ours(encoder, tmp_path):
    torch.manual_seed(0)
    model = TopKPoolingForSequenceClassification.from_backbone(encoder, num_labels=3, k=4)
    return saved(model, tmp_path / "ours")


def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**BERT, num_labels=3)).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=INPUT_IDS, attention_mask=torch.ones_like(INPUT_IDS)).logits


def test_a_model_without_pooling_is_loaded_too(tmp_path):
    model = bert()
    loaded, _ = load_checkpoint(saved(model, tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model))
    assert not loaded.training


def test_a_model_that_pool_encoder_made_comes_back_with_its_poolings(tmp_path):
    model = pool_encoder(bert(), {1: 4})
    loaded, _ = load_checkpoint(saved(model, tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(logits(bert()), logits(model))


def test_an_adapter_brings_the_model_that_it_belongs_to(ours, tmp_path):
    model = get_peft_model(
        load_checkpoint(ours)[0], LoraConfig(target_modules=["query"], modules_to_save=["classifier"])
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    loaded, _ = load_checkpoint(saved(model, tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(model))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(logits(load_checkpoint(ours)[0]), logits(model))


def adapter_of(model, folder):
    """A trained adapter of a classifier, saved with a tokenizer."""
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    saved(model, folder)
    return model


@pytest.mark.parametrize(("backbone", "said"), [
    (bert, "the adapter was trained on another model than"),  # a classifier itself, which would answer
    (lambda: BertModel(BertConfig(**BERT)), "it is an adapter of .*, which answers nothing"),
])  # fmt: skip
def test_an_adapter_is_not_put_on_the_backbone_of_the_model_that_it_was_trained_on(backbone, said, tmp_path):
    folder = saved(backbone(), tmp_path / "backbone")
    model = TopKPoolingForSequenceClassification.from_backbone(folder, k=4, num_labels=3)
    adapted = adapter_of(model, tmp_path / "adapter")
    with pytest.raises(ValueError, match=said) as refused:
        load_checkpoint(tmp_path / "adapter")
    assert "merge_and_unload()" in str(refused.value) and "\n" not in str(refused.value)
    expected = logits(adapted)
    merged, _ = load_checkpoint(saved(adapted.merge_and_unload(), tmp_path / "merged"))
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)  # of sums in another order


def test_an_adapter_of_a_saved_model_that_pools_is_loaded_with_it_and_with_another_k_or_none(ours, tmp_path):
    adapted = adapter_of(TopKPoolingForSequenceClassification.from_pretrained(ours), tmp_path / "adapter")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "adapter")[0]), logits(adapted))
    assert load_checkpoint(tmp_path / "adapter", k=2)[0].get_base_model().pooling.k == 2
    assert logits(load_checkpoint(tmp_path / "adapter", unpooled=True)[0]).shape == (2, 3)


def test_an_adapter_of_a_model_that_pools_between_its_layers_fits_it_without_them(tmp_path):
    folder = saved(pool_encoder(bert(), {1: 4}), tmp_path / "pooled")
    adapted = adapter_of(load_pooled(BertForSequenceClassification, str(folder)), tmp_path / "adapter")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "adapter")[0]), logits(adapted))
    assert logits(load_checkpoint(tmp_path / "adapter", unpooled=True)[0]).shape == (2, 3)


def test_a_summarizer_of_transformers_is_loaded_too(tmp_path):
    loaded, _ = load_checkpoint(saved(BartForConditionalGeneration(BartConfig(**BART)), tmp_path))
    assert loaded.can_generate()


@pytest.mark.parametrize(("given", "temperature"), [
    ({"k": 2}, 1.0), ({"k": 0.5, "temperature": 0.5}, 0.5), ({"operator": "iterative"}, 1.0),
    ({"operator": "iterative", "temperature": 0.25}, 0.25),
])  # fmt: skip
def test_a_checkpoint_is_loaded_with_other_options_of_its_pooling(ours, given, temperature):
    for model in (
        load_checkpoint(ours, **given)[0],
        TopKPoolingForSequenceClassification.from_pretrained(ours, **given),
    ):
        assert model.pooling.options.operator == model.config.operator == given.get("operator", "successive_halving")
        assert model.pooling.options.temperature == model.config.temperature == temperature
        assert model.pooling.k == given.get("k", 4)
        assert model.pooling.options.eval_operator == given.get("operator", "select_and_merge")


def test_a_checkpoint_is_loaded_with_another_way_to_pool_in_eval_mode(ours):
    model, _ = load_checkpoint(ours, eval_operator="hard")
    assert (model.config.operator, model.pooling.options.eval_operator) == ("successive_halving", "hard")


def test_the_same_operator_keeps_the_temperature_of_the_checkpoint(encoder, tmp_path):
    model = TopKPoolingForSequenceClassification.from_backbone(encoder, num_labels=3, k=4, temperature=1.0)
    folder = saved(model, tmp_path)
    same = TopKPoolingForSequenceClassification.from_pretrained(folder, operator="successive_halving")
    assert (same.config.temperature, same.config.initial_temperature) == (1.0, None)
    other = TopKPoolingForSequenceClassification.from_pretrained(folder, operator="successive_halving_relative")
    assert (other.config.temperature, other.config.initial_temperature) == (0.0625, 2.0)


@pytest.mark.parametrize("given", [{"operator": "soft"}, {"k": 0}, {"temperature": -1.0}, {"window": 1}])
def test_what_cannot_be_is_refused_when_a_configuration_is_loaded(ours, given):
    with pytest.raises((ValueError, StrictDataclassError), match="|".join(given)):
        TopKPoolingForSequenceClassification.from_pretrained(ours, **given)


def test_the_only_pooling_between_layers_takes_another_k(tmp_path):
    saved(pool_encoder(bert(), {1: 4}), tmp_path / "one")
    (pooling,) = poolings(load_checkpoint(tmp_path / "one", k=3, operator="hard")[0])
    assert (pooling.k, pooling.options.operator) == (3, "hard")


@pytest.mark.parametrize("given", [{"k": 3}, {"operator": "hard", "temperature": 0.5}], ids=" ".join)
def test_options_of_a_pooling_beside_unpooled_are_refused(ours, given):
    with pytest.raises(ValueError, match=f"^expected unpooled=True or .*, got both; leave out {', '.join(given)}$"):
        load_checkpoint(ours, unpooled=True, **given)


def without_tokenizer(folder):
    for path in folder.glob("token*"):
        path.unlink()


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def half_the_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def a_bare_encoder(folder):
    saved(BertModel(BertConfig(**BERT)), folder)


def an_adapter_of_nothing(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    (folder / "adapter_model.safetensors").touch()


@pytest.mark.parametrize(("change", "message"), [
    (without_tokenizer, "expected a tokenizer beside the model"),
    (without_weights, "model.safetensors"),
    (half_the_weights, "a file of weights is damaged or cut off"),
    (a_bare_encoder, "got BertModel"),
    (an_adapter_of_nothing, "does not name the model that it belongs to"),
    (shutil.rmtree, "expected a folder with a checkpoint, found none"),
])  # fmt: skip
def test_half_a_checkpoint_and_one_of_something_else_are_refused_in_one_line(change, message, ours):
    change(ours)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(ours)
    assert str(ours) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_a_model_cannot_have_are_refused(ours, tmp_path):
    with pytest.raises(ValueError, match="expected k to be a whole number"):
        load_checkpoint(ours, k=0)
    with pytest.raises(ValueError, match="without a pooling has no k"):
        load_checkpoint(saved(bert(), tmp_path / "bert"), k=2)
    for checkpoint in (ours, saved(pool_encoder(bert(), {1: 4}), tmp_path / "pooled")):
        with pytest.raises(ValueError, match=r"\(.*temperature.*\), got temprature$"):
            load_checkpoint(checkpoint, temprature=0.1)


def test_k_is_saved_as_it_is_now(tmp_path):
    config = TopKPoolingConfig(backbone=BertConfig(**BERT), k=8, k_by_layer={"1": 20}, num_labels=3)
    model = TopKPoolingForSequenceClassification(config)
    for pooling, k in zip(poolings(model), (12, 0.5), strict=True):
        pooling.k = k
    loaded, _ = load_checkpoint(saved(model, tmp_path))
    assert [pooling.k for pooling in poolings(loaded)] == [12, 0.5]
    assert logits(loaded).equal(logits(model))
