"""LoRA by PEFT: poolings are trained in full, wherever they stand, saved with the adapter and loaded again."""

import pytest
import torch
from tiny import BERT
from transformers import BertConfig, BertForSequenceClassification

from shtopk import anneal
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import TopKPoolingForSequenceClassification

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
