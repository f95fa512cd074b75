"""The configurations hand on what libraries ask every configuration, and save it once."""

import json

import pytest
import torch
from seq2seq_families import FAMILIES
from tiny import BERT
from transformers import AutoConfig, BertConfig

from shtopk.models import (
    TopKPoolingConfig,
    TopKPoolingForSequenceClassification,
    TopKPoolingSeq2SeqConfig,
)

ASKED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "pad_token_id")


def config_of(family):
    if family == "bert":
        return TopKPoolingConfig(backbone=BertConfig(**BERT, pad_token_id=7), k=4)
    return TopKPoolingSeq2SeqConfig(backbone=FAMILIES[family], k=4)


@pytest.mark.parametrize("family", ["bert", *FAMILIES])
def test_what_is_asked_of_a_configuration_is_that_of_its_backbone(family, tmp_path):
    config = config_of(family)
    backbone = config.backbone
    encoder = backbone.encoder if family == "encoder-decoder" else backbone
    for name in ASKED:
        expected = getattr(backbone if name == "pad_token_id" else encoder, name)
        assert expected is not None and getattr(config, name) == config.to_dict()[name] == expected
    config.save_pretrained(tmp_path)
    assert not set(ASKED) & set(json.loads((tmp_path / "config.json").read_text()))
    for again in (AutoConfig.from_pretrained(tmp_path), type(config).from_dict(config.to_dict())):
        assert all(getattr(again, name) == getattr(config, name) for name in ASKED)


def test_it_is_set_in_the_backbone():
    config = config_of("bert")
    config.pad_token_id = 3
    assert config.backbone.pad_token_id == 3
    with pytest.raises(ValueError, match="expected vocab_size in the configuration of the backbone"):
        TopKPoolingConfig(vocab_size=100)


def test_a_checkpoint_that_has_it_beside_the_backbone_is_read_as_before(tmp_path):
    config_of("bert").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": 0, "vocab_size": 5}))
    again = AutoConfig.from_pretrained(tmp_path)
    assert (again.pad_token_id, again.vocab_size) == (7, BERT["vocab_size"])


def test_a_checkpoint_of_the_backbone_gives_a_configuration_around_it(tmp_path):
    BertConfig(**BERT, pad_token_id=7).save_pretrained(tmp_path)
    config = TopKPoolingConfig.from_pretrained(tmp_path, k=5)
    assert (config.k, config.backbone.model_type, config.pad_token_id) == (5, "bert", 7)


def test_prompt_tuning_finds_what_it_needs_and_trains():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = TopKPoolingForSequenceClassification(config_of("bert"))
    tuned = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)).train()
    ids = torch.randint(8, 30, (2, 12))
    types = (torch.arange(12) > 5).long().expand(2, 12)
    tuned(input_ids=ids, token_type_ids=types, labels=torch.tensor([0, 1])).loss.backward()
    assert tuned.prompt_encoder.default.embedding.weight.grad.any()
