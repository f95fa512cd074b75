"""LoRA by PEFT: poolings are trained in full, wherever they stand, saved with the adapter and loaded again."""

import copy

import pytest
import torch
from tiny import BART, BERT, LLAMA, tiny_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import check_peft_version

from shtopk import TopKPooling, anneal
from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.encoder import pool_encoder, unpool_encoder
from shtopk.models import (
    TopKPoolingConfig,
    TopKPoolingForConditionalGeneration,
    TopKPoolingForSequenceClassification,
    TopKPoolingModel,
)

peft = pytest.importorskip("peft")
IDS = torch.randint(4, 30, (2, 50), generator=torch.Generator().manual_seed(0))


def pooled_at_the_end(encoder):
    return TopKPoolingForSequenceClassification.from_backbone(encoder, k=4, num_labels=2, window=32, window_k=8)


def pooled_between_layers(encoder):
    return pool_encoder(BertForSequenceClassification(BertConfig(**BERT)), {1: 8})


def pooled_at_both(encoder):
    return TopKPoolingForSequenceClassification.from_backbone(encoder, k=4, num_labels=2, k_by_layer={"1": 8})


def build(kind, encoder):
    torch.manual_seed(0)
    return kind(encoder)


@pytest.mark.parametrize(("kind", "name", "poolings"), [
    (pooled_at_the_end, "pooling", 1),
    (pooled_at_the_end, "scorer", 1),
    (pooled_between_layers, "scorer", 1),
    (pooled_at_both, "scorer", 2),
])  # fmt: skip
def test_poolings_are_trained_in_full_saved_and_loaded_again(kind, name, poolings, encoder, tmp_path):
    lora = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=[name, "classifier"])
    model = peft.get_peft_model(build(kind, encoder), lora).train()
    drawn = {key: value.clone() for key, value in model.named_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for progress in (0.0, 0.5, 1.0):
        anneal(model, progress)
        model(input_ids=IDS, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    now = dict(model.named_parameters())
    moved = {key for key in now if not torch.equal(now[key], drawn[key])}
    scorers = [key for key in now if key.endswith("weight") and "scorer" in key and "modules_to_save" in key]
    assert len(scorers) == poolings
    assert moved >= set(scorers)
    assert all("lora_" in key or ".modules_to_save." in key for key in moved)

    model.eval().save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(build(kind, encoder), tmp_path).eval()
    expected = model(input_ids=IDS).logits
    assert not torch.allclose(build(kind, encoder).eval()(input_ids=IDS).logits, expected)
    torch.testing.assert_close(again(input_ids=IDS).logits, expected)
    torch.testing.assert_close(again.merge_and_unload().eval()(input_ids=IDS).logits, expected)


def summarizer(folder):
    return TopKPoolingForConditionalGeneration.from_backbone(folder, k=4, copy_head=True)


def bare(folder):
    return TopKPoolingModel.from_pretrained(
        folder, config=TopKPoolingConfig.from_pretrained(folder, k=4, scorer="mlp")
    )


def pooled_between(folder):
    model = BertForSequenceClassification.from_pretrained(folder)
    torch.nn.init.eye_(model.bert.pooler.dense.weight)  # which the checkpoint lacks
    return pool_encoder(model, {1: 8})


QUERY = {"target_modules": ["query", "value"]}
RECIPES = {  # without a word about the scorer
    "a classifier": (pooled_at_both, peft.LoraConfig, {"task_type": "SEQ_CLS", **QUERY}),
    "every linear layer": (pooled_at_both, peft.LoraConfig, {"task_type": "SEQ_CLS", "target_modules": "all-linear"}),
    "no task": (pooled_at_the_end, peft.LoraConfig, {"modules_to_save": ["classifier"], **QUERY}),
    "another method": (pooled_at_the_end, peft.LoHaConfig, {"task_type": "SEQ_CLS", **QUERY}),
    "between layers": (pooled_between, peft.LoraConfig, {"task_type": "SEQ_CLS", **QUERY}),
    "features": (bare, peft.LoraConfig, {"task_type": "FEATURE_EXTRACTION", "target_modules": "all-linear"}),
    "a summarizer": (summarizer, peft.LoraConfig, {"task_type": "SEQ_2_SEQ_LM", "target_modules": ["q_proj"]}),
}


def answer(model):
    if model.config.is_encoder_decoder:
        out = model(input_ids=IDS, decoder_input_ids=IDS[:, :5])
        return out.logits, out.encoder_last_hidden_state
    out = model(input_ids=IDS)
    return out.get("logits", out.get("last_hidden_state")), out.assignment.positions


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_new_is_trained_and_saved_whatever_the_recipe(recipe, encoder, tmp_path):
    build_new, method, options = RECIPES[recipe]
    folder = encoder
    if build_new is summarizer:
        folder = tmp_path / "bart"
        BartForConditionalGeneration(BartConfig(**BART)).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    torch.manual_seed(1)
    model = peft.get_peft_model(build_new(folder), method(**options))
    new = [name for name, parameter in model.named_parameters() if parameter.requires_grad and ".scorer." in name]
    assert new and all("modules_to_save" in name for name in new)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.eval().save_pretrained(tmp_path / "adapter")
    torch.manual_seed(2)  # another scorer is drawn
    again = peft.PeftModel.from_pretrained(build_new(folder), tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = answer(model)
        for one in (again, again.merge_and_unload()):
            for given, wanted in zip(answer(one), expected, strict=True):
                torch.testing.assert_close(given, wanted)


@pytest.fixture
def own_method():
    """Adapters of transformers' own `add_adapter`."""
    try:
        check_peft_version(MIN_PEFT_VERSION)
    except ValueError:
        pytest.skip(f"this transformers wants PEFT {MIN_PEFT_VERSION} for it, here is {peft.__version__}")


@pytest.mark.usefixtures("own_method")
def test_an_adapter_of_transformers_own_method_trains_the_scorer_too(encoder, tmp_path):
    model = pooled_at_the_end(encoder)
    model.add_adapter(peft.LoraConfig(**QUERY))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(".scorer." in name for name in trained)
    model.delete_adapter("default")
    assert not hasattr(model, "peft_config")


@pytest.mark.usefixtures("own_method")
@pytest.mark.parametrize("kind", [pooled_at_the_end, pooled_between_layers])
def test_adapters_that_are_off_for_a_while_are_on_again_with_the_scorers_that_they_trained(kind, encoder):
    model = build(kind, encoder).eval()
    before = model(input_ids=IDS).logits
    model.add_adapter(peft.LoraConfig(**QUERY))
    for name, parameter in model.named_parameters():
        if ".scorer.modules_to_save." in name:
            torch.nn.init.normal_(parameter)
    trained = model(input_ids=IDS).logits
    model.disable_adapters()
    assert model(input_ids=IDS).logits.equal(before) and not before.equal(trained)
    model.enable_adapters()
    assert model(input_ids=IDS).logits.equal(trained)
    assert all(x.requires_grad for name, x in model.named_parameters() if ".scorer.modules_to_save." in name)


def test_an_adapter_without_the_scorer_is_used_as_it_was_saved(encoder, tmp_path):
    model = pooled_at_the_end(encoder)
    adapted = peft.get_peft_model(model, peft.LoraConfig(inference_mode=True, **QUERY))
    assert not any("modules_to_save" in name for name, _ in adapted.named_parameters())


def test_a_copy_of_a_pooled_model_is_pooled_and_unpooled_it_has_its_class_again():
    model = pool_encoder(BertForSequenceClassification(BertConfig(**BERT)), {1: 8}).eval()
    other = copy.deepcopy(model)
    assert torch.equal(other(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert isinstance(other, BertForSequenceClassification) and other is not model
    assert type(unpool_encoder(model)) is BertForSequenceClassification


def test_a_scorer_that_an_adapter_left_out_is_told_in_a_line():
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.pooling = torch.nn.Linear(8, 8), TopKPooling(8, 2)

        def forward(self, x):
            return self.pooling(self.query(x)).hidden_states

    adapted = peft.get_peft_model(Outer(), peft.LoraConfig(target_modules=["query"])).train()
    with pytest.warns(UserWarning, match=r"name it in modules_to_save=\['scorer'\]"):
        adapted(torch.randn(2, 9, 8))


def pooled_in_the_prompt(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    return pool_decoder(model, {1: 8})


@pytest.mark.parametrize("method", [peft.PromptTuningConfig, peft.PromptEncoderConfig])
@pytest.mark.parametrize(("kind", "task", "scorers"), [
    (pooled_at_both, "SEQ_CLS", 2), (pooled_between, "SEQ_CLS", 1), (pooled_in_the_prompt, "CAUSAL_LM", 1),
])  # fmt: skip
def test_prompt_tuning_trains_and_saves_the_scorers_if_it_names_them(kind, task, scorers, method, encoder, tmp_path):
    recipe = method(task_type=task, num_virtual_tokens=4, modules_to_save=["scorer"])
    model = peft.get_peft_model(kind(encoder), recipe)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(name.endswith(".scorer.modules_to_save.default.weight") for name in trained) == scorers
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.eval().save_pretrained(tmp_path)
    torch.manual_seed(2)  # another scorer is drawn
    again = peft.PeftModel.from_pretrained(kind(encoder), tmp_path).eval()
    expected = model(input_ids=IDS).logits
    torch.testing.assert_close(again(input_ids=IDS).logits, expected)
    for name, parameter in model.named_parameters():
        if ".scorer." in name:
            torch.nn.init.normal_(parameter)
    assert not torch.allclose(model(input_ids=IDS).logits, expected)


@pytest.mark.parametrize("kind", [pooled_at_the_end, pooled_between_layers, pooled_at_both])
def test_prefix_tuning_is_refused_in_one_line(kind, encoder):
    prefix = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    model = peft.get_peft_model(kind(encoder), prefix)
    with pytest.raises(ValueError, match=r"past_key_values.*, got .*prefix tuning; take prompt tuning or LoRA"):
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    assert model.base_model(input_ids=IDS).logits.shape == (2, 2)
